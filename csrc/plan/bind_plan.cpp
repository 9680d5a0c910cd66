// The planner in Python: what a problem would launch on a device, and the arguments of each launch as bytes.
#include "plan/bind_plan.h"

#include "plan/plan.h"

#include <pybind11/stl.h>

#include <cstring>
#include <stdexcept>

namespace py = pybind11;
using namespace py::literals;

namespace pyconvx {
namespace {

// A chip by its name in the table, or as it was described.
using DeviceOrName = std::variant<Device, std::string>;

const Device& device_of(const DeviceOrName& device) {
  if (const Device* described = std::get_if<Device>(&device)) return *described;
  const std::string& name = std::get<std::string>(device);
  if (const Device* device = find_device(name)) return *device;
  std::string known;
  for (const Device& device : devices()) known += (known.empty() ? "" : ", ") + device.name;
  throw std::invalid_argument("there is no device \"" + name + "\"; the ones described are " + known);
}

LaunchPlan plan_or_throw(std::variant<LaunchPlan, Refusal> result) {
  if (const Refusal* refusal = std::get_if<Refusal>(&result)) throw std::invalid_argument(refusal->sentence);
  return std::get<LaunchPlan>(std::move(result));
}

// A convolution's.
void bind_convolution_plan(py::module_& m, const char* name,
                           std::variant<LaunchPlan, Refusal> (*plan)(const Conv2dProblem&, const Device&,
                                                                     const PlanOptions&),
                           const char* doc) {
  m.def(
      name,
      [plan](const Conv2dProblem& problem, const DeviceOrName& device, bool tf32, int alignment,
             const std::string& tile, bool ahead_of_time) {
        return plan_or_throw(plan(problem, device_of(device), {tf32, alignment, tile, ahead_of_time}));
      },
      "problem"_a, "device"_a, py::kw_only(), "tf32"_a = false, "alignment"_a = 16, "tile"_a = "",
      "ahead_of_time"_a = false, doc);
}

// pyconvx._problem.ElementwiseProblem, of which a plan needs the number of elements alone.
struct Elementwise : ElementwiseProblem {
  explicit Elementwise(const py::object& problem)
      : ElementwiseProblem{problem.attr("count").cast<int64_t>(), problem.attr("dtype").cast<DType>(),
                           problem.attr("activation").cast<Activation>()} {}
};

void bind_elementwise_plan(py::module_& m, const char* name,
                           std::variant<LaunchPlan, Refusal> (*plan)(const ElementwiseProblem&, const Device&,
                                                                     const PlanOptions&),
                           const char* doc) {
  m.def(
      name,
      [plan](const py::object& problem, const DeviceOrName& device, int alignment, bool ahead_of_time) {
        return plan_or_throw(
            plan(Elementwise(problem), device_of(device), {false, alignment, {}, ahead_of_time}));
      },
      "problem"_a, "device"_a, py::kw_only(), "alignment"_a = 16, "ahead_of_time"_a = false, doc);
}

// An operation without tiles to choose from.
template <class Problem>
void bind_plan_of(py::module_& m, const char* name,
                  std::variant<LaunchPlan, Refusal> (*plan)(const Problem&, const Device&,
                                                            const PlanOptions&),
                  const char* doc) {
  m.def(
      name,
      [plan](const Problem& problem, const DeviceOrName& device, int alignment, bool ahead_of_time) {
        return plan_or_throw(plan(problem, device_of(device), {false, alignment, {}, ahead_of_time}));
      },
      "problem"_a, "device"_a, py::kw_only(), "alignment"_a = 16, "ahead_of_time"_a = false, doc);
}

// One that has tiles.
template <class Problem>
void bind_tiled_plan_of(py::module_& m, const char* name,
                        std::variant<LaunchPlan, Refusal> (*plan)(const Problem&, const Device&,
                                                                  const PlanOptions&),
                        const char* doc) {
  m.def(
      name,
      [plan](const Problem& problem, const DeviceOrName& device, int alignment, const std::string& tile,
             bool ahead_of_time) {
        return plan_or_throw(plan(problem, device_of(device), {false, alignment, tile, ahead_of_time}));
      },
      "problem"_a, "device"_a, py::kw_only(), "alignment"_a = 16, "tile"_a = "", "ahead_of_time"_a = false,
      doc);
}

// The arguments with the buffers' addresses in their places. A buffer that is not given is null.
py::bytes arguments(const Launch& launch, const py::kwargs& buffers) {
  std::vector<unsigned char> bytes = launch.arguments;
  for (const PointerSlot& slot : launch.pointers) {
    if (!buffers.contains(slot.buffer.c_str())) continue;
    uint64_t address = buffers[slot.buffer.c_str()].cast<uint64_t>();
    if (address) address += static_cast<uint64_t>(slot.skip);
    std::memcpy(bytes.data() + slot.at, &address, sizeof address);
  }
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

void bind_plan(py::module_& m) {
  py::class_<Device>(m, "Device", "What a plan knows of a chip.")
      .def(py::init(&describe_device), py::kw_only(), "name"_a, "capability"_a, "sms"_a, "shared_per_block"_a,
           "shared_per_sm"_a, "threads_per_sm"_a,
           "A chip by what its driver says of it; its rates are those of its compute capability.")
      .def_readonly("name", &Device::name)
      .def_readonly("capability", &Device::capability, "80 for compute capability 8.0.")
      .def_readonly("sms", &Device::sms)
      .def_readonly("shared_per_block", &Device::shared_per_block)
      .def_readonly("shared_per_sm", &Device::shared_per_sm)
      .def_readonly("slots_per_hmma", &Device::slots_per_hmma,
                    "Issue slots for which one m16n8k16 keeps a tensor core busy.")
      .def_readonly("ffma_per_clock", &Device::ffma_per_clock, "Of one SM.");
  py::class_<Kernel>(m, "Kernel", "A kernel's C++ name expression and the header that declares it.")
      .def_readonly("name", &Kernel::name)
      .def_readonly("header", &Kernel::header);
  m.def("ahead_of_time_kernels", &ahead_of_time_kernels,
        "All kernels that plans made with ahead_of_time may launch.");

  m.def("devices", &devices, "The chips that plans can be made for by name.");

  py::class_<Candidate>(m, "Candidate", "A tile that could run the problem, and what the model thinks of it.")
      .def_readonly("tile", &Candidate::tile)
      .def_readonly("blocks_per_sm", &Candidate::blocks_per_sm)
      .def_readonly("waves", &Candidate::waves)
      .def_readonly("clocks", &Candidate::clocks, "Clocks that the device needs.")
      .def_readonly("tensor", &Candidate::tensor, "Clocks for the tensor cores, or FFMA pipes, alone.")
      .def_readonly("issue", &Candidate::issue, "Clocks for the issue slots alone.")
      .def_readonly("shared", &Candidate::shared, "Clocks for shared memory alone.")
      .def_readonly("l2", &Candidate::l2, "Clocks for L2 alone.")
      .def_readonly("dram", &Candidate::dram, "Clocks for DRAM alone, if every tensor is moved once.");

  py::class_<PointerSlot>(m, "PointerSlot", "A place in a launch's arguments for the address of a buffer.")
      .def_readonly("buffer", &PointerSlot::buffer)
      .def_readonly("at", &PointerSlot::at, "Byte in the arguments.")
      .def_readonly("skip", &PointerSlot::skip, "Bytes to be added to the buffer's address.");

  py::class_<Launch>(m, "Launch", "One kernel launch. Its one parameter is a struct by value.")
      .def_readonly("kernel", &Launch::kernel, "The C++ name expression of the instantiated kernel.")
      .def_readonly("header", &Launch::header, "The header that declares it, relative to kernels/cuda.")
      .def_readonly("grid", &Launch::grid)
      .def_readonly("block", &Launch::block)
      .def_readonly("shared_bytes", &Launch::shared_bytes, "Dynamic shared memory.")
      .def_property_readonly(
          "constants",
          [](const Launch& launch) {
            py::dict constants;
            for (const Constant& constant : launch.constants)
              constants[constant.name.c_str()] = constant.value;
            return constants;
          },
          "Macros, by name, that the kernel may be compiled with for this problem alone.")
      .def_readonly("pointers", &Launch::pointers,
                    "Where in the arguments the addresses of which buffers belong.")
      .def("arguments", &arguments,
           "The parameter's bytes, from addresses: arguments(input=..., filter=..., output=..., ...), with "
           "the\n"
           "plan's workspaces under their names. A buffer that is left out is null.");

  py::class_<LaunchPlan>(m, "Plan",
                         "What runs a problem on a device: launches in order, and the memory they need.")
      .def_readonly("family", &LaunchPlan::family)
      .def_readonly("tile", &LaunchPlan::tile)
      .def_readonly("launches", &LaunchPlan::launches)
      .def_property_readonly(
          "workspaces",
          [](const LaunchPlan& plan) {
            py::dict bytes;
            for (const Workspace& workspace : plan.workspaces)
              bytes[workspace.name.c_str()] = workspace.bytes;
            return bytes;
          },
          "Bytes by name.")
      .def_readonly("candidates", &LaunchPlan::candidates, "All tiles that could run it.");

  bind_convolution_plan(
      m, "plan_conv2d", &plan_conv2d,
      "The launches of a convolution. tf32 permits float32 to be multiplied as tf32; every address must be "
      "a\n"
      "multiple of alignment bytes; tile names a candidate to use instead of the one that the model "
      "prefers;\n"
      "ahead_of_time keeps to the kernels that nvcc compiles when pyconvx is built.\n"
      "Raises ValueError, with the reason, if no kernel can run the problem on the device.");
  bind_convolution_plan(
      m, "plan_conv2d_dgrad", &plan_conv2d_dgrad,
      "The launches of the gradient of a convolution's input, from grad_output and filter to grad_input; "
      "the\n"
      "options are plan_conv2d's.");
  bind_convolution_plan(
      m, "plan_conv2d_wgrad", &plan_conv2d_wgrad,
      "The launches of the gradient of a convolution's filters and, if the problem has one, of its bias, "
      "from\n"
      "grad_output and input to grad_weight and grad_bias; the options are plan_conv2d's.");
  bind_convolution_plan(
      m, "plan_conv_transpose2d", &plan_conv_transpose2d,
      "The launches of a transposed convolution, which is described by the problem whose dgrad it is, from\n"
      "input, filter and bias to output; the options are plan_conv2d's.");
  bind_tiled_plan_of(
      m, "plan_max_pool2d", &plan_max_pool2d,
      "The launches of a max pooling: buffers input, output and, where the problem has an index, indices.\n"
      "A tile is how many windows a thread owns, down x across; where planes are pooled through shared\n"
      "memory, it is the rows x columns of windows that a block owns.");
  bind_tiled_plan_of(
      m, "plan_max_pool2d_backward", &plan_max_pool2d_backward,
      "The launches of its gradient: buffers grad_output, indices, grad_input. A tile is how many blocks of\n"
      "stride x stride pixels a thread owns, or a block of planes. Of a pooling with a ReLU before it,\n"
      "relu_output is the output: windows that are not above 0 there pass no gradient on.");
  bind_plan_of(m, "plan_max_pool2d_gather", &plan_max_pool2d_gather,
               "The launches of a gather at a max pooling's winners: buffers input, indices, output.");
  bind_tiled_plan_of(
      m, "plan_max_unpool2d", &plan_max_unpool2d,
      "The launches of a max unpooling: buffers input, indices, output, and bad_index, 8 bytes of "
      "zeros, in which\n"
      "~(the place in memory of the first index that lies outside its plane) is left, if there is "
      "one. Of planes, a tile is the rows x columns of cells that a block owns.");
  bind_tiled_plan_of(
      m, "plan_max_unpool2d_backward", &plan_max_unpool2d_backward,
      "The launches of its gradient: buffers grad_output, indices, grad_input, and bad_index as "
      "forward.");
  bind_tiled_plan_of(m, "plan_nearest_unpool2d", &plan_nearest_unpool2d, "Buffers input, output.");
  bind_tiled_plan_of(m, "plan_nearest_unpool2d_backward", &plan_nearest_unpool2d_backward,
                     "Buffers grad_output, grad_input.");
  bind_elementwise_plan(m, "plan_residual_add", &plan_residual_add, "Buffers x, residual, output.");
  bind_elementwise_plan(
      m, "plan_residual_add_mask", &plan_residual_add_mask,
      "Buffers x, residual, output, and mask: a bit for each element, set where the output is "
      "not <= 0.");
  bind_elementwise_plan(m, "plan_relu_backward", &plan_relu_backward,
                        "Buffers grad_output, output, grad_input.");
  bind_elementwise_plan(m, "plan_relu_backward_mask", &plan_relu_backward_mask,
                        "Buffers grad_output, mask, grad_input.");
}

}  // namespace pyconvx
