// ldmatrix, stmatrix, movmatrix: 8x8 matrices of 16-bit elements between shared memory and the registers of a
// warp.
//
// Lane 8j + r gives the address of row r of matrix j. In the registers, lane l holds of each matrix the
// elements (row l / 4, columns 2 (l % 4) and 2 (l % 4) + 1), the first in the lower half; with .trans rows
// and columns change places.
#include <cstring>

#include "../access.h"
#include "../block.h"
#include "lane_ops.h"

namespace pyconvx::emulator {

namespace {

constexpr int kRows = 8, kRowBytes = 16;

struct Matrix {
  uint16_t element[kRows][kRows];

  uint32_t fragment(int lane, bool transposed) const {
    const int row = lane / 4, column = lane % 4 * 2;
    const uint16_t first = transposed ? element[column][row] : element[row][column];
    const uint16_t second = transposed ? element[column + 1][row] : element[row][column + 1];
    return first | static_cast<uint32_t>(second) << 16;
  }
  void set_fragment(int lane, bool transposed, uint32_t value) {
    const int row = lane / 4, column = lane % 4 * 2;
    (transposed ? element[column][row] : element[row][column]) = static_cast<uint16_t>(value);
    (transposed ? element[column + 1][row] : element[row][column + 1]) = static_cast<uint16_t>(value >> 16);
  }
};

LaneMask address_lanes(const Instruction& i) {
  return i.count == 4 ? kAllLanes : (1u << kRows * i.count) - 1;
}

Access row_access(Warp& w, const Instruction& i, Access::Kind kind) {
  Access access;
  access.kind = kind;
  access.space = i.space;
  access.bytes = access.align = kRowBytes;
  access.whole_warp = true;
  compute_addresses(w, i, address_lanes(i), access.address);
  return access;
}

void ldmatrix(Warp& w, const Instruction& i, LaneMask) {
  Access access = row_access(w, i, Access::read);
  resolve(w, i, address_lanes(i), access);
  for (int j = 0; j < i.count; ++j) {
    Matrix matrix;
    for (int row = 0; row < kRows; ++row) {
      const uint8_t* host = access.host[j * kRows + row];
      if (host)
        std::memcpy(matrix.element[row], host, kRowBytes);
      else
        std::memset(matrix.element[row], kPoison, kRowBytes);
    }
    uint32_t* d = w.lanes<uint32_t>(i.destination[j]);
    if (i.transposed) {
      for (int lane = 0; lane < kLanes; ++lane) d[lane] = matrix.fragment(lane, true);
    } else {  // four lanes' fragments are a row as it lies in memory
      std::memcpy(d, matrix.element, sizeof matrix.element);
    }
  }
}

void stmatrix(Warp& w, const Instruction& i, LaneMask active) {
  require_sources_defined(w, i, active);
  Access access = row_access(w, i, Access::write);
  uint8_t data[kLanes][kWidestAccess];
  for (int j = 0; j < i.count; ++j) {
    Matrix matrix;
    const uint32_t* s = w.lanes<uint32_t>(i.source[j]);
    for (int lane = 0; lane < kLanes; ++lane) matrix.set_fragment(lane, i.transposed, s[lane]);
    for (int row = 0; row < kRows; ++row) std::memcpy(data[j * kRows + row], matrix.element[row], kRowBytes);
  }
  access.data = data;
  resolve(w, i, address_lanes(i), access);
}

void movmatrix(Warp& w, const Instruction& i, LaneMask) {
  Matrix matrix;
  const uint32_t* s = w.lanes<uint32_t>(i.source[0]);
  for (int lane = 0; lane < kLanes; ++lane) matrix.set_fragment(lane, false, s[lane]);
  uint32_t* d = w.lanes<uint32_t>(i.destination[0]);
  for (int lane = 0; lane < kLanes; ++lane) d[lane] = matrix.fragment(lane, true);
}

void take_form(Decoder& d) {
  if (!d.take("sync") || !d.take("aligned")) d.unsupported("only .sync.aligned");
  if (!d.take("m8n8") || !d.take("b16")) d.unsupported("only .m8n8 and .b16");
  d.out().flow = Flow::whole_warp;
  d.out().transposed = d.take("trans");
}

bool decode_ldmatrix(Decoder& d) {
  Instruction& i = d.out();
  const bool is_load = d.mnemonic() == "ldmatrix";
  take_form(d);
  i.count = d.take("x4") ? 4 : d.take("x2") ? 2 : 1;
  d.take("x1");
  i.space = d.take_space();
  if (i.space != Space::shared && i.space != Space::generic) d.unsupported("only shared memory");
  d.expect_operands(2);
  for (const Operand& element : d.elements(d.operand(is_load ? 0 : 1), i.count)) {
    if (is_load)
      d.destination(element, Type::b32);
    else
      d.source(element, Type::b32);
  }
  d.address(d.operand(is_load ? 1 : 0));
  d.run(is_load ? ldmatrix : stmatrix);
  return true;
}

bool decode_movmatrix(Decoder& d) {
  take_form(d);
  if (!d.out().transposed) d.unsupported("movmatrix without .trans");
  d.values(1, 1, Type::b32);
  d.run(movmatrix);
  return true;
}

}  // namespace

void add_matrix_moves(InstructionSet& set) {
  set.add("ldmatrix", decode_ldmatrix);
  set.add("stmatrix", decode_ldmatrix);
  set.add("movmatrix", decode_movmatrix);
}

}  // namespace pyconvx::emulator
