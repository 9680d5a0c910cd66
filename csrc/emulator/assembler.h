// A kernel of a module -> Program: lays out registers, shared, local and parameter memory, resolves names and
// labels.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "program.h"

namespace pyconvx::emulator {

// Device addresses. Each allocation owns a window of 2^40 bytes and begins in the middle of it, so that a
// wild address around one allocation never lands in another. Generic addresses of the other spaces carry a
// tag in the top byte.
constexpr int kWindowBits = 40;
constexpr uint64_t kWindowMiddle = uint64_t(1) << 38;
constexpr uint64_t kSpaceTagMask = uint64_t(0xff) << 56;
constexpr uint64_t kSharedTag = uint64_t(1) << 56, kLocalTag = uint64_t(2) << 56,
                   kParamTag = uint64_t(3) << 56;
constexpr uint64_t kFirstModuleVariable = 0x8000;  // windows below belong to the arguments of a launch
constexpr uint64_t kThreadParam = uint64_t(1)
                                  << 32;  // .param addresses from here on are a thread's own, for calls

constexpr uint64_t window_address(uint64_t window) {
  return ((window + 1) << kWindowBits) + kWindowMiddle;
}

class Assembler {
public:
  Assembler(const Module& module, const std::string& kernel);
  Program assemble();

  struct Register {
    uint32_t place;
    Type type;
  };
  struct Symbol {
    Space space;
    uint64_t address;
    uint64_t bytes;
  };
  const Register* find_register(const std::string& name);
  const Symbol* find_symbol(const std::string& name) const;
  const Function* find_function(const std::string& name) const;
  uint32_t constant(uint64_t bits, uint32_t bytes);
  uint32_t special(const std::string& name);
  uint32_t discard();  // a register nobody reads, for "_"

  struct Jump {
    int instruction;
    int scope;
    std::string label;
    bool table;
  };
  void jump(const std::string& label, bool table);
  int call(CallSite site);
  const Module& module() const { return module_; }

private:
  struct Scope {
    int parent;
    std::map<std::string, std::pair<Type, int>> declared;
    std::map<std::string, Register> registers;
    std::map<std::string, Symbol> symbols;
    std::map<std::string, int> labels;
    std::map<std::string, std::vector<std::string>> tables;
  };
  uint32_t allocate_register(uint32_t bytes);
  std::vector<std::string> reachable_functions(const std::string& kernel) const;
  void place_shared(const std::vector<std::string>& functions);
  void add_shared(const Variable& variable, std::map<std::string, Symbol>& into);
  void declare(const Variable& variable);
  void assemble_function(const Function& function);
  void assemble_instruction(const Statement& statement);
  void resolve_jumps();
  void resolve_calls();
  int label(const Jump& jump, const std::string& name) const;

  const Module& module_;
  Program program_;
  std::map<std::string, Symbol> module_symbols_;
  std::map<std::string, int> function_entry_;
  std::map<std::string, std::vector<Symbol>> function_parameters_, function_results_;
  std::vector<Scope> scopes_;
  int scope_ = 0;
  std::vector<Jump> jumps_;
  uint32_t discard_ = 0;
};

}  // namespace pyconvx::emulator
