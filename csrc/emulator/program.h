// A kernel ready to run: registers have places in the register file, labels are instruction numbers, every
// instruction knows the function that executes it for the active lanes of a warp.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "number_formats.h"
#include "syntax.h"
#include "types.h"

namespace pyconvx::emulator {

class Warp;
struct Instruction;
using Handler = void (*)(Warp& warp, const Instruction& instruction, LaneMask active);

// What the scheduler has to do besides calling the handler.
enum class Flow : uint8_t {
  straight,
  branch,
  branch_table,
  call,
  leave,
  exit,
  trap,
  barrier,     // of the block
  collective,  // waits for the lanes named by a member mask (the last source)
  whole_warp,  // ldmatrix, mma ...: waits for all 32 lanes
};

// Where a result is defined.
enum class Defined : uint8_t {
  where_all_sources,  // arithmetic
  where_any_source,   // bit operations: compilers put two halves together of which one is never looked at
  by_handler,
};

// Bytes in front of each register that hold which lanes have a defined value in it.
constexpr uint32_t kRegisterHeader = 32;

struct Instruction {
  Handler run = nullptr;
  Flow flow = Flow::straight;
  Type type = Type::none, other_type = Type::none;
  Space space = Space::generic;
  Rounding rounding = Rounding::nearest_even;
  bool flush = false, saturate = false, relu = false, transposed = false;
  bool synchronizing = false;  // atomic, volatile, relaxed ...: never one half of a data race with its like
  bool guard_negated = false;
  Defined defined = Defined::where_all_sources;
  uint8_t mode = 0;   // which variant of an instruction, named in the file of its group
  uint8_t count = 1;  // elements of a vector, matrices of ldmatrix, K of an mma
  uint8_t destinations = 0, sources = 0;
  uint8_t destination_size[8] = {}, source_size[16] = {};  // bytes a lane has in that register
  uint32_t destination[8] = {}, source[16] = {};           // places in the register file, 0: none
  uint32_t negated = 0;  // bit k: source k is a predicate used as its opposite
  uint32_t guard = 0;
  uint32_t address = 0;  // register with the address; 0: `offset` is the address
  uint8_t address_size = 0;
  int64_t offset = 0;
  int64_t immediate = 0;
  int target = -1;  // of a branch, the callee of a call
  int table = -1;   // of a branch table, of a call's arguments
  int line = 0;
  SourceLine source_line;
  int opcode = 0;  // into Program::opcodes
};

// A region of the per-thread .param space that a call copies.
struct ParamRange {
  uint64_t from, to, bytes;
};

struct CallSite {
  std::string function;
  std::vector<ParamRange> arguments, results;
};

struct Program {
  std::string kernel;
  const Module* module = nullptr;
  std::vector<Instruction> code;
  int entry = 0;
  std::vector<std::string> opcodes;
  std::vector<std::vector<int>> branch_tables;
  std::vector<CallSite> calls;
  std::vector<std::pair<std::string, uint32_t>> specials;       // "%tid.x" and its place in the register file
  std::map<std::pair<uint64_t, uint32_t>, uint32_t> constants;  // (bits, bytes) -> place in the register file
  std::vector<uint32_t> registers;                              // places of those that instructions write
  uint32_t register_bytes = 0;                                  // of one warp
  uint32_t static_shared = 0;       // bytes; dynamic shared memory begins behind them
  uint32_t local_bytes = 0;         // a thread
  uint32_t thread_param_bytes = 0;  // a thread, for calls
  std::vector<Variable> parameters;
  std::vector<uint32_t> parameter_offsets;
  uint32_t parameter_bytes = 0;
  uint32_t max_threads = 0;
  std::vector<uint32_t> required_block;

  const std::string& opcode(const Instruction& instruction) const { return opcodes[instruction.opcode]; }
  const std::string& text(const Instruction& instruction) const { return module->lines[instruction.line]; }
};

}  // namespace pyconvx::emulator
