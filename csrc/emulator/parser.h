// PTX text -> syntax. Throws Error, with the PTX line, at anything that is not PTX.
#pragma once

#include <string_view>

#include "syntax.h"

namespace pyconvx::emulator {

Module parse(std::string_view ptx);

// The bits of a number as an operand of type `type`: 12, 0x1F, 017, 0b11, 0f3F800000, 0d..., 1.5. Throws
// Error.
uint64_t number_bits(const std::string& spelling, bool negative, Type type);

}  // namespace pyconvx::emulator
