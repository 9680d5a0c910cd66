// One instruction's syntax -> Instruction. The files in instructions/ each register the mnemonics they know
// and use a Decoder to claim modifiers and operands. What nobody claims is an error, so that no modifier is
// ever ignored.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "program.h"

namespace pyconvx::emulator {

class Assembler;

class Decoder {
public:
  Decoder(Assembler& assembler, const Statement& statement, Instruction& out);

  const std::string& mnemonic() const { return words_[0]; }
  Instruction& out() { return out_; }

  // Modifiers. take() claims one and says whether it was there.
  bool take(std::string_view modifier);
  bool has(std::string_view modifier) const;
  Type next_type() const;  // the first unclaimed type, Type::none if there is none
  Type take_type();
  Rounding take_rounding(bool to_integer = false);  // .rn .rz .rm .rp, or .rni ...; nearest even if absent
  Space take_space();
  int take_vector();  // .v2 .v4 .v8, else 1
  const std::vector<std::string>& words() const { return words_; }
  void claim_all() { claimed_.assign(claimed_.size(), true); }

  // Operands, in the order in which they are added to the instruction.
  size_t operand_count() const { return statement_.operands.size(); }
  const Operand& operand(size_t index) const;
  void expect_operands(size_t count) const;
  enum Width { exact, at_least };  // may the register be wider than the type?
  void destination(const Operand& operand, Type type, Width width = exact);
  void source(const Operand& operand, Type type, Width width = exact);
  void destination_predicate(const Operand& operand);
  void source_predicate(const Operand& operand);
  void no_source();                      // leaves a place empty
  void address(const Operand& operand);  // sets address register, offset; resolves a symbol's space
  bool is_predicate(const Operand& operand) const;
  int64_t constant(const Operand& operand) const;
  std::vector<Operand> elements(const Operand& operand,
                                size_t count) const;            // of a vector, or the operand itself
  void values(size_t destinations, size_t sources, Type type);  // "op d, a, b": all of one type
  void branch_to(const std::string& label);
  void branch_by_table(const std::string& table);
  void call(const std::string& function, const std::vector<Operand>& results,
            const std::vector<Operand>& arguments);
  bool is_defined_function(const std::string& function) const;

  void run(Handler handler);  // null: there is no such variant
  [[noreturn]] void unsupported(const std::string& why) const;
  [[noreturn]] void fail(const std::string& why) const;
  void finish() const;  // every modifier claimed?

private:
  Assembler& assembler_;
  const Statement& statement_;
  Instruction& out_;
  std::vector<std::string> words_;  // mnemonic and modifiers
  std::vector<bool> claimed_;
};

// Claims the instruction and returns true, or returns false untouched when the types are another group's.
using Decode = bool (*)(Decoder& decoder);

class InstructionSet {
public:
  static const InstructionSet& all();
  void add(std::string mnemonic, Decode decode) { decoders_.emplace(std::move(mnemonic), decode); }
  void decode(Decoder& decoder) const;

private:
  std::multimap<std::string, Decode> decoders_;
};

// One per file of instructions/.
void add_integer(InstructionSet& set);
void add_bits(InstructionSet& set);
void add_float(InstructionSet& set);
void add_half(InstructionSet& set);
void add_convert(InstructionSet& set);
void add_compare_select(InstructionSet& set);
void add_move(InstructionSet& set);
void add_memory_access(InstructionSet& set);
void add_async_copy(InstructionSet& set);
void add_atomics(InstructionSet& set);
void add_control(InstructionSet& set);
void add_warp_collectives(InstructionSet& set);
void add_matrix_moves(InstructionSet& set);
void add_mma(InstructionSet& set);

}  // namespace pyconvx::emulator
