#include "cpu/parallel.h"

#include <algorithm>
#include <dlfcn.h>
#include <exception>
#include <mutex>

namespace pyconvx::cpu {
namespace {

// The OpenMP runtime that torch has brought into the process, called by the names that GCC compiles
// `#pragma omp parallel` to. LLVM's and Intel's runtimes have them too.
struct OpenMP {
  void (*parallel)(void (*function)(void*), void* data, unsigned num_threads, unsigned flags);
  int (*max_threads)();
  int (*team_size)();
  int (*thread)();
  int (*in_parallel)();

  explicit operator bool() const { return parallel && max_threads && team_size && thread && in_parallel; }
};

template <class Function>
void look_up(Function*& function, const char* symbol) {
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, symbol));
}

OpenMP find_openmp() {
  OpenMP openmp{};
  look_up(openmp.parallel, "GOMP_parallel");
  look_up(openmp.max_threads, "omp_get_max_threads");
  look_up(openmp.team_size, "omp_get_num_threads");
  look_up(openmp.thread, "omp_get_thread_num");
  look_up(openmp.in_parallel, "omp_in_parallel");
  return openmp;
}

// Looked up on first use and not at load, since this module may be imported before torch.
const OpenMP& openmp() {
  static const OpenMP found = find_openmp();
  return found;
}

struct Job {
  int64_t count;
  RangeFunction function;
  void* context;
  std::mutex mutex;
  std::exception_ptr failure;
};

void run_share(void* data) {
  Job& job = *static_cast<Job*>(data);
  const int64_t team = openmp().team_size(), thread = openmp().thread();
  // The same cut as torch's own loops make: a thread then finds in its cache what it wrote there last.
  const int64_t share = (job.count + team - 1) / team;
  const int64_t begin = std::min(job.count, thread * share), end = std::min(job.count, begin + share);
  if (begin == end) return;
  try {
    job.function(job.context, begin, end);
  } catch (...) {  // an exception must not leave an OpenMP thread
    const std::lock_guard<std::mutex> lock(job.mutex);
    job.failure = std::current_exception();
  }
}

}  // namespace

int num_threads() {
  return openmp() ? openmp().max_threads() : 1;
}

void parallel_ranges(int64_t count, int64_t grain, RangeFunction function, void* context) {
  if (count <= 0) return;
  const int64_t most = (count + grain - 1) / grain;
  const int64_t threads =
      most > 1 && openmp() && !openmp().in_parallel() ? std::min<int64_t>(most, openmp().max_threads()) : 1;
  if (threads <= 1) {
    function(context, 0, count);
    return;
  }
  Job job{count, function, context, {}, {}};
  openmp().parallel(run_share, &job, static_cast<unsigned>(threads), 0);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace pyconvx::cpu
