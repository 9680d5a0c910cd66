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

struct Launch {
  std::string kernel;  // as C++ names it: "pyconvx::fprop_plain<pyconvx::f64>"
  std::string header;  // that declares it, in kernels/cuda: "conv/fprop_plain.cuh"
  std::array<int64_t, 3> grid;
  int block;
  int shared_bytes;                      // dynamic
  std::vector<unsigned char> arguments;  // the kernel's one parameter, passed by value, with null pointers
  std::vector<PointerSlot> pointers;
};

// Memory that the launches need beside the tensors.
struct Workspace {
  std::string name;
  int64_t bytes;
};

// A tile that could run the problem, and what the model thinks of it.
struct Candidate {
  std::string tile;
  int blocks_per_sm;
  double waves;
  double clocks;  // that the device needs
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
};

std::variant<LaunchPlan, Refusal> plan_conv2d(const Conv2dProblem&, const Device&, const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_unpool2d(const Unpool2dProblem&, const Device&,
                                                    const PlanOptions& = {});
std::variant<LaunchPlan, Refusal> plan_max_unpool2d_backward(const Unpool2dProblem&, const Device&,
                                                             const PlanOptions& = {});

}  // namespace pyconvx
