// The Python module pyconvx._emulator: modules, kernels and launches. pyconvx/emulator gives it its public
// face.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <tuple>

#include "assembler.h"
#include "launch.h"
#include "parser.h"

namespace py = pybind11;

namespace pyconvx::emulator {

namespace {

// A parsed PTX text and the memory of its global variables, which keep their values from launch to launch.
struct LoadedModule {
  Module module;
  std::vector<std::vector<uint8_t>> variables;

  explicit LoadedModule(const std::string& ptx) : module(parse(ptx)) {
    for (const Variable& v : module.variables) {
      std::vector<uint8_t> bytes = v.initial;
      bytes.resize(v.space == Space::shared ? 0 : v.bytes());
      variables.push_back(std::move(bytes));
    }
  }
};

struct Kernel {
  std::shared_ptr<LoadedModule> loaded;
  Program program;
};

// name, host address, bytes, read-only, host address of the written marks (0: none)
using Buffer = std::tuple<std::string, uintptr_t, uint64_t, bool, uintptr_t>;

std::string file_name(const Module& module, int file) {
  auto found = module.files.find(file);
  return found == module.files.end() ? "" : found->second;
}

py::list report_list(const Program& program, const ReportLog& log) {
  py::list reports;
  for (const auto& [key, r] : log) {
    const Instruction& i = program.code[r.instruction];
    py::dict d;
    d["kind"] = r.kind;
    d["count"] = r.count;
    d["kernel"] = program.kernel;
    d["block"] = py::make_tuple(r.block[0], r.block[1], r.block[2]);
    d["thread"] = py::make_tuple(r.thread[0], r.thread[1], r.thread[2]);
    d["ptx_line"] = i.line;
    d["ptx"] = program.text(i);
    d["source_file"] = file_name(*program.module, i.source_line.file);
    d["source_line"] = i.source_line.line;
    d["message"] = r.message;
    reports.append(d);
  }
  return reports;
}

py::list site_list(const Program& program, const std::vector<SiteCounts>& counts) {
  py::list sites;
  for (size_t k = 0; k < counts.size(); ++k) {
    const SiteCounts& c = counts[k];
    if (!c.warps) continue;
    const Instruction& i = program.code[k];
    py::dict d;
    d["opcode"] = program.opcode(i);
    d["ptx_line"] = i.line;
    d["source_file"] = file_name(*program.module, i.source_line.file);
    d["source_line"] = i.source_line.line;
    d["warp_instructions"] = c.warps;
    d["thread_instructions"] = c.threads;
    d["requests"] = c.requests;
    d["sectors"] = c.sectors;
    d["bytes_asked"] = c.bytes;
    d["bytes_moved"] = c.sectors * 32;
    d["wavefronts"] = c.wavefronts;
    d["ideal_wavefronts"] = c.ideal_wavefronts;
    d["shared_bytes"] = c.shared_bytes;
    sites.append(d);
  }
  return sites;
}

Order order_named(const std::string& name) {
  if (name == "ascending") return Order::ascending;
  if (name == "descending") return Order::descending;
  if (name == "random") return Order::random;
  throw Error("order '" + name + "' is not one of ascending, descending, random");
}

py::tuple launch(Kernel& kernel, std::array<uint32_t, 3> grid, std::array<uint32_t, 3> block,
                 uint32_t dynamic_shared, const std::string& parameters, const std::vector<Buffer>& buffers,
                 bool check, const std::string& order, uint32_t seed, uint64_t max_steps, uint32_t workers,
                 uint64_t last_blocks) {
  LaunchOptions options;
  std::copy(grid.begin(), grid.end(), options.grid);
  std::copy(block.begin(), block.end(), options.block);
  options.dynamic_shared = dynamic_shared;
  options.check = check;
  options.order = order_named(order);
  options.seed = seed;
  options.max_steps = max_steps;
  options.workers = workers;
  options.last_blocks = last_blocks;
  Launch launch(kernel.program, options);
  launch.parameters.assign(parameters.begin(), parameters.end());
  for (size_t k = 0; k < buffers.size(); ++k) {
    const auto& [name, host, bytes, read_only, written] = buffers[k];
    launch.memory.place(k, name, reinterpret_cast<void*>(host), bytes, read_only,
                        reinterpret_cast<uint8_t*>(written));
  }
  LoadedModule& loaded = *kernel.loaded;
  for (size_t k = 0; k < loaded.module.variables.size(); ++k) {
    const Variable& v = loaded.module.variables[k];
    if (v.space == Space::shared) continue;
    if (v.has_addresses) continue;  // an access is then out of bounds, and says so
    launch.memory.place(kFirstModuleVariable + k, v.name, loaded.variables[k].data(),
                        loaded.variables[k].size(), v.space == Space::constant, nullptr);
  }
  LaunchResult result;
  {
    py::gil_scoped_release release;
    result = run(launch);
  }
  return py::make_tuple(report_list(kernel.program, result.reports),
                        site_list(kernel.program, result.counts));
}

py::list parameter_list(const Kernel& kernel) {
  py::list list;
  for (size_t k = 0; k < kernel.program.parameters.size(); ++k) {
    const Variable& v = kernel.program.parameters[k];
    const bool aggregate = v.count > 1;
    list.append(py::make_tuple(v.name, aggregate ? "bytes" : std::string(facts(v.type).name),
                               kernel.program.parameter_offsets[k], v.bytes()));
  }
  return list;
}

}  // namespace

PYBIND11_MODULE(_emulator, m) {
  py::register_exception<Error>(m, "Error", PyExc_RuntimeError);
  m.def(
      "device_address", [](uint64_t index) { return window_address(index); },
      "Device address of the index-th buffer of a launch.");
  m.def("shared_memory_limit", &shared_memory_limit);
  py::class_<LoadedModule, std::shared_ptr<LoadedModule>>(m, "Module")
      .def(py::init<const std::string&>())
      .def_property_readonly("target", [](const LoadedModule& l) { return l.module.target; })
      .def_property_readonly("kernels",
                             [](const LoadedModule& l) {
                               std::vector<std::string> names;
                               for (const auto& [name, function] : l.module.functions) {
                                 if (function.entry) names.push_back(name);
                               }
                               return names;
                             })
      .def("variable",
           [](LoadedModule& l, const std::string& name) {
             for (size_t k = 0; k < l.variables.size(); ++k) {
               if (l.module.variables[k].name != name) continue;
               return py::make_tuple(reinterpret_cast<uintptr_t>(l.variables[k].data()),
                                     l.variables[k].size());
             }
             throw Error("the module has no variable " + name);
           })
      .def("kernel", [](std::shared_ptr<LoadedModule> l, const std::string& name) {
        return std::make_unique<Kernel>(Kernel{l, Assembler(l->module, name).assemble()});
      });
  py::class_<Kernel>(m, "Kernel")
      .def_property_readonly("name", [](const Kernel& k) { return k.program.kernel; })
      .def_property_readonly("parameters", &parameter_list)
      .def_property_readonly("parameter_bytes", [](const Kernel& k) { return k.program.parameter_bytes; })
      .def_property_readonly("static_shared_bytes", [](const Kernel& k) { return k.program.static_shared; })
      .def_property_readonly("local_bytes", [](const Kernel& k) { return k.program.local_bytes; })
      .def_property_readonly("instructions", [](const Kernel& k) { return k.program.code.size(); })
      .def_property_readonly("max_threads", [](const Kernel& k) { return k.program.max_threads; })
      .def("launch", &launch);
}

}  // namespace pyconvx::emulator
