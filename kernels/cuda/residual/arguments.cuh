// What an element-wise kernel is given, by value. Shared by host and device.
#pragma once

namespace pyconvx {

struct ElementwiseArguments {
  const void* x;      // or the gradient of the output
  const void* other;  // the residual; or the output itself, where its gradient is wanted
  void* to;
  void* mask;  // a bit for each element, in bytes
  int count;
  int mask_words;  // may the mask be accessed by 4 bytes?
};

}  // namespace pyconvx
