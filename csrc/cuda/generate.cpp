// Writes the sources that nvcc compiles: the kernels that plans made ahead of time may launch, instantiated,
// and a table of them by name. A program of the build, run once.
//
//   generate <folder> <files>   writes kernels_0.cu .. kernels_<files - 1>.cu, and table.cpp, into the folder
#include "plan/plan.h"

#include <fstream>
#include <iostream>
#include <set>
#include <string>

namespace {

using pyconvx::Kernel;

// Kernels are dealt out in turns, since neighbours in the list take about as long to compile.
void write_kernels(const std::string& path, const std::vector<Kernel>& kernels, size_t file, size_t files) {
  std::ofstream out(path);
  std::set<std::string> headers;
  for (size_t i = file; i < kernels.size(); i += files) headers.insert(kernels[i].header);
  out << "#include \"cuda/kernel_table.h\"\n\n";
  for (const std::string& header : headers) out << "#include \"" << header << "\"\n";
  out << "\nnamespace pyconvx::cuda {\n\nextern const KernelEntry kernels_" << file << "[] = {\n";
  for (size_t i = file; i < kernels.size(); i += files)
    out << "    {\"" << kernels[i].name << "\",\n     reinterpret_cast<const void*>(&" << kernels[i].name
        << ")},\n";
  out << "    {nullptr, nullptr},\n};\n\n}  // namespace pyconvx::cuda\n";
}

void write_table(const std::string& path, size_t files) {
  std::ofstream out(path);
  out << "#include \"cuda/kernel_table.h\"\n\nnamespace pyconvx::cuda {\n\n";
  for (size_t file = 0; file < files; ++file) out << "extern const KernelEntry kernels_" << file << "[];\n";
  out << "\nextern const KernelEntry* const kernel_tables[] = {\n";
  for (size_t file = 0; file < files; ++file) out << "    kernels_" << file << ",\n";
  out << "    nullptr,\n};\n\n}  // namespace pyconvx::cuda\n";
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    std::cerr << "usage: generate <folder> <files>\n";
    return 2;
  }
  const std::string folder = words[1];
  const size_t files = std::stoul(words[2]);
  const std::vector<Kernel> kernels = pyconvx::ahead_of_time_kernels();
  for (size_t file = 0; file < files; ++file)
    write_kernels(folder + "/kernels_" + std::to_string(file) + ".cu", kernels, file, files);
  write_table(folder + "/table.cpp", files);
}
