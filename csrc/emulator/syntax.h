// What a PTX text says, as the parser understood it and before anything is decided about how to execute it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "types.h"

namespace pyconvx::emulator {

struct Operand {
  enum Kind : uint8_t {
    name,     // register, special register, symbol, label; with `offset` for "symbol+4"
    number,   // spelling in `text`, sign apart
    vector,   // {a, b, c}: `parts`
    address,  // [base], [base+offset], [base, ...]: parts[0] is the base, the rest are what follows a comma
    list,     // (a, b) of a call
  };
  Kind kind = name;
  bool negated = false;  // "!%p" or a number with a minus sign
  std::string text;
  std::string second;  // q of "p|q"
  int64_t offset = 0;
  std::vector<Operand> parts;
};

struct Variable {
  std::string name;
  Space space = Space::generic;
  Type type = Type::none;
  uint64_t count = 1;  // elements
  uint32_t align = 1;
  bool external = false;         // .extern or no size: dynamic shared memory
  std::vector<uint8_t> initial;  // empty: zeros
  bool has_addresses = false;    // the initialiser names other symbols; the emulator has no linker

  uint64_t bytes() const { return count * bytes_of(type); }
};

struct SourceLine {
  int file = 0;
  int line = 0;
};

struct Statement {
  enum Kind : uint8_t { instruction, label, variable, registers, open_scope, close_scope, targets };
  Kind kind;
  int line = 0;
  SourceLine source;
  std::string text;   // opcode with modifiers; label; register name or prefix; table name
  std::string guard;  // "@%p" or "@!%p" in front of an instruction
  bool guard_negated = false;
  std::vector<Operand> operands;  // also the labels of a .branchtargets table
  Variable declared;
  int register_count = -1;  // of ".reg .b32 %r<count>"; -1 for a single register
};

struct Function {
  std::string name;
  bool entry = false;
  bool defined = false;
  int line = 0;
  std::vector<Variable> parameters, results;
  std::vector<Statement> body;
  uint32_t max_threads = 0;              // .maxntid or .reqntid, 0 if absent
  std::vector<uint32_t> required_block;  // .reqntid
};

struct Module {
  std::string target;  // "sm_80"
  std::map<int, std::string> files;
  std::vector<Variable> variables;  // of module scope: global, constant, shared
  std::map<std::string, Function> functions;
  std::vector<std::string> lines;  // lines[n] is the text of PTX line n, trimmed
};

}  // namespace pyconvx::emulator
