// From a problem and a device to launches: which kernels, with which tile, grid, block and arguments.
//
// The kernel family, and with it the order in which an output's products are summed, follows from the filter,
// the map size, the dtype and the layout alone. The batch and the device choose a tile, and tiles never
// change the order.
#pragma once

#include "plan/device.h"
#include "problem.h"

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace pyconvx {

// Where in a launch's arguments the address of a buffer belongs. Buffers are the operation's tensors
// ("input", "filter", "output", "bias", "scale", "shift", "residual") and the plan's workspaces.
struct PointerSlot {
  std::string buffer;
  size_t at;     // byte in the arguments
  int64_t skip;  // bytes to be added to the buffer's address
};

// A kernel, as C++ names it ("pyconvx::fprop_plain<pyconvx::f64>"), and the header in kernels/cuda that
// declares it ("conv/fprop_plain.cuh").
struct Kernel {
  std::string name;
  std::string header;
};

// A macro that a kernel may be compiled with where it is compiled for one problem: PYCONVX_C = 64.
struct Constant {
  std::string name;
  int64_t value;
};

struct Launch {
  std::string kernel;
  std::string header;
  std::array<int64_t, 3> grid;
  int block;
  int shared_bytes;                      // dynamic
  std::vector<unsigned char> arguments;  // the kernel's one parameter, passed by value, with null pointers
  std::vector<PointerSlot> pointers;
  std::vector<Constant> constants = {};
};

// Memory that the launches need beside the tensors.
struct Workspace {
  std::string name;
  int64_t bytes;
};

// A tile that could run the problem, and what the model thinks of it.
struct Candidate {
  std::string tile;
  int blocks_per_sm = 0;
  double waves = 0;
  double clocks = 0;  // that the device needs
  // What each of its parts alone would need, the same clocks: tensor cores (or FFMA pipes), issue slots,
  // shared memory, L2, and DRAM, if every tensor is moved once. 0 where the model doesn't say.
  double tensor = 0, issue = 0, shared = 0, l2 = 0, dram = 0;
};

struct LaunchPlan {
  std::string family;            // the kernel: "fprop_tensor_core"
  std::string tile;              // the candidate that won, or was asked for
  std::vector<Launch> launches;  // in order
  std::vector<Workspace> workspaces;
  std::vector<Candidate> candidates;
};

struct Refusal {
  std::string sentence;
};

struct PlanOptions {
  bool tf32 = false;   // may float32 be multiplied as tf32?
  int alignment = 16;  // bytes that every tensor's address is a multiple of
  std::string tile;    // the candidate to use; empty: the one that the model thinks fastest
  // Launch only kernels that are compiled ahead of time. They are fewer: windows and tiles that are less
  // common run in kernels that are less special, which give the same bits.
  bool ahead_of_time = false;
};

std::variant<LaunchPlan, Refusal> plan_conv2d(const Conv2dProblem&, const Device&, const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_pool2d(const Pool2dProblem&, const Device&,
                                                  const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_pool2d_backward(const Pool2dProblem&, const Device&,
                                                           const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_pool2d_gather(const Pool2dProblem&, const Device&,
                                                         const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_unpool2d(const Unpool2dProblem&, const Device&,
                                                    const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_unpool2d_backward(const Unpool2dProblem&, const Device&,
                                                             const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_nearest_unpool2d(const NearestUnpool2dProblem&, const Device&,
                                                        const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_nearest_unpool2d_backward(const NearestUnpool2dProblem&, const Device&,
                                                                 const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_residual_add(const ElementwiseProblem&, const Device&,
                                                    const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_residual_add_mask(const ElementwiseProblem&, const Device&,
                                                         const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_relu_backward(const ElementwiseProblem&, const Device&,
                                                     const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_relu_backward_mask(const ElementwiseProblem&, const Device&,
                                                          const PlanOptions& = {});

// Of problems whose pass is dgrad. Their tensors are "grad_output", "filter" and "grad_input", and if the
// problem is masked, "relu_output"; of conv_transpose2d, "input", "filter", "bias" and "output".
std::variant<LaunchPlan, Refusal> plan_conv2d_dgrad(const Conv2dProblem&, const Device&,
                                                    const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_conv_transpose2d(const Conv2dProblem&, const Device&,
                                                        const PlanOptions& = {});

// Of problems whose pass is wgrad: "grad_output", "input", "grad_weight" and, where the problem has one,
// "grad_bias"; if it is masked, "relu_output".
std::variant<LaunchPlan, Refusal> plan_conv2d_wgrad(const Conv2dProblem&, const Device&,
                                                    const PlanOptions& = {});

// All kernels that plans made with `ahead_of_time` may launch.
std::vector<Kernel> ahead_of_time_kernels();

}  // namespace pyconvx
