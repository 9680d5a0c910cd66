// The table of one instruction set.
#include "cpu/kernels.h"

namespace pyconvx::cpu::PYCONVX_ISA {

extern const Kernels table;
const Kernels table{
    max_pool2d,        max_pool2d_backward,   max_pool2d_gather, first_bad_index,
    max_unpool2d,      max_unpool2d_backward, residual_add,      relu_backward,
    residual_add_mask, relu_backward_mask,
};

}  // namespace pyconvx::cpu::PYCONVX_ISA
