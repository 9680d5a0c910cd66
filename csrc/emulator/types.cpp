#include "types.h"

#include <cstdarg>
#include <cstdio>

namespace pyconvx::emulator {

static const TypeFacts kFacts[] = {
    {"", 0, false, false},    {"pred", 0, false, false}, {"b8", 1, false, false},    {"u8", 1, false, false},
    {"s8", 1, false, true},   {"b16", 2, false, false},  {"u16", 2, false, false},   {"s16", 2, false, true},
    {"b32", 4, false, false}, {"u32", 4, false, false},  {"s32", 4, false, true},    {"b64", 8, false, false},
    {"u64", 8, false, false}, {"s64", 8, false, true},   {"b128", 16, false, false}, {"f16", 2, true, true},
    {"bf16", 2, true, true},  {"f16x2", 4, true, true},  {"bf16x2", 4, true, true},  {"tf32", 4, true, true},
    {"f32", 4, true, true},   {"f64", 8, true, true},    {"f32x2", 8, true, true},
};

const TypeFacts& facts(Type type) {
  return kFacts[static_cast<int>(type)];
}

Type type_named(std::string_view name) {
  for (int i = 1; i < static_cast<int>(sizeof kFacts / sizeof *kFacts); ++i) {
    if (kFacts[i].name == name) return static_cast<Type>(i);
  }
  return Type::none;
}

std::string format(const char* pattern, ...) {
  va_list arguments, again;
  va_start(arguments, pattern);
  va_copy(again, arguments);
  std::string text(vsnprintf(nullptr, 0, pattern, arguments), '\0');
  vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  va_end(arguments);
  return text;
}

std::string lanes_text(LaneMask lanes) {
  std::string text;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    int last = lane;
    while (last + 1 < kLanes && (lanes >> (last + 1) & 1)) ++last;
    if (!text.empty()) text += ',';
    text += lane == last ? std::to_string(lane) : format("%d-%d", lane, last);
    lane = last;
  }
  return text.empty() ? "none" : text;
}

}  // namespace pyconvx::emulator
