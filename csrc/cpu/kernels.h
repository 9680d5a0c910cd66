// The CPU kernels as a table. Each of their source files is compiled once for every instruction set, into a
// namespace of that name (PYCONVX_ISA), and the fastest table that the machine can run is chosen at run time.
#pragma once

#include "problem.h"

namespace pyconvx::cpu {

struct Kernels {
  void (*max_pool2d)(const Pool2dProblem&, const void* input, void* output, void* indices);
  void (*max_pool2d_backward)(const Pool2dProblem&, const void* grad_output, const void* indices,
                              void* grad_input);
  void (*max_pool2d_gather)(const Pool2dProblem&, const void* input, const void* indices, void* output);

  // The place in memory of the first index that points outside its plane, or -1 if none does.
  int64_t (*first_bad_index)(const Unpool2dProblem&, const void* indices);
  // Requires that there is none.
  void (*max_unpool2d)(const Unpool2dProblem&, const void* input, const void* indices, void* output);
  // Returns what first_bad_index does; where that is a place, grad_input may have been written in part.
  int64_t (*max_unpool2d_backward)(const Unpool2dProblem&, const void* grad_output, const void* indices,
                                   void* grad_input);

  void (*residual_add)(int64_t count, DType, Activation, const void* x, const void* residual, void* output);
  void (*relu_backward)(int64_t count, DType, const void* grad_output, const void* output, void* grad_input);
  // With a mask of one bit an element, set where the output of the ReLU is not <= 0; the last byte is filled
  // up with zeros.
  void (*residual_add_mask)(int64_t count, DType, const void* x, const void* residual, void* output,
                            uint8_t* mask);
  void (*relu_backward_mask)(int64_t count, DType, const void* grad_output, const uint8_t* mask,
                             void* grad_input);
};

const Kernels& kernels();
const char* instruction_set();  // of those kernels

}  // namespace pyconvx::cpu

#ifdef PYCONVX_ISA
namespace pyconvx::cpu::PYCONVX_ISA {

void max_pool2d(const Pool2dProblem&, const void* input, void* output, void* indices);
void max_pool2d_backward(const Pool2dProblem&, const void* grad_output, const void* indices,
                         void* grad_input);
void max_pool2d_gather(const Pool2dProblem&, const void* input, const void* indices, void* output);
int64_t first_bad_index(const Unpool2dProblem&, const void* indices);
void max_unpool2d(const Unpool2dProblem&, const void* input, const void* indices, void* output);
int64_t max_unpool2d_backward(const Unpool2dProblem&, const void* grad_output, const void* indices,
                              void* grad_input);
void residual_add(int64_t count, DType, Activation, const void* x, const void* residual, void* output);
void relu_backward(int64_t count, DType, const void* grad_output, const void* output, void* grad_input);
void residual_add_mask(int64_t count, DType, const void* x, const void* residual, void* output,
                       uint8_t* mask);
void relu_backward_mask(int64_t count, DType, const void* grad_output, const uint8_t* mask, void* grad_input);

}  // namespace pyconvx::cpu::PYCONVX_ISA
#endif
