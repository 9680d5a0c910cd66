#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>

namespace pyconvx::cpu {

namespace baseline {
extern const Kernels table;
}
#ifdef PYCONVX_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

struct Choice {
  const char* name;
  const Kernels* table;
};

Choice choose() {
#ifdef PYCONVX_X86
  // So that a test can run the kernels of a lesser machine; like ATen's ATEN_CPU_CAPABILITY.
  const char* wish = std::getenv("PYCONVX_CPU_INSTRUCTION_SET");
  const auto allowed = [wish](const char* name) { return !wish || !*wish || !std::strcmp(wish, name); };
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return {"avx512", &avx512::table};
  if (has_avx2 && allowed("avx2")) return {"avx2", &avx2::table};
#endif
  return {"baseline", &baseline::table};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

const Kernels& kernels() {
  return *choice().table;
}

const char* instruction_set() {
  return choice().name;
}

}  // namespace pyconvx::cpu
