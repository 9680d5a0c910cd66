#include "decoder.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "assembler.h"
#include "parser.h"

namespace pyconvx::emulator {

Decoder::Decoder(Assembler& assembler, const Statement& statement, Instruction& out)
    : assembler_(assembler), statement_(statement), out_(out) {
  const std::string& text = statement.text;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    words_.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  claimed_.assign(words_.size(), false);
  claimed_[0] = true;
}

void Decoder::fail(const std::string& why) const {
  throw Error(format("PTX line %d: %s: %s", statement_.line, why.c_str(),
                     assembler_.module().lines[statement_.line].c_str()));
}

void Decoder::unsupported(const std::string& why) const {
  throw Error(format("PTX line %d: the emulator has no instruction '%s' (%s): %s", statement_.line,
                     statement_.text.c_str(), why.c_str(),
                     assembler_.module().lines[statement_.line].c_str()));
}

bool Decoder::has(std::string_view modifier) const {
  return std::find(words_.begin() + 1, words_.end(), modifier) != words_.end();
}

bool Decoder::take(std::string_view modifier) {
  for (size_t i = 1; i < words_.size(); ++i) {
    if (words_[i] == modifier && !claimed_[i]) return claimed_[i] = true;
  }
  return false;
}

Type Decoder::next_type() const {
  for (size_t i = 1; i < words_.size(); ++i) {
    const Type type = claimed_[i] ? Type::none : type_named(words_[i]);
    if (type != Type::none) return type;
  }
  return Type::none;
}

Type Decoder::take_type() {
  const Type type = next_type();
  if (type == Type::none) unsupported("a type is missing or not known");
  take(facts(type).name);
  return type;
}

Rounding Decoder::take_rounding(bool to_integer) {
  const std::string suffix = to_integer ? "i" : "";
  if (take("rz" + suffix)) return Rounding::zero;
  if (take("rm" + suffix)) return Rounding::down;
  if (take("rp" + suffix)) return Rounding::up;
  if (!to_integer && take("rna")) return Rounding::nearest_away;
  take("rn" + suffix);
  return Rounding::nearest_even;
}

Space Decoder::take_space() {
  if (take("global")) return Space::global;
  if (take("shared") || take("shared::cta")) return Space::shared;
  if (take("local")) return Space::local;
  if (take("const")) return Space::constant;
  if (take("param") || take("param::entry") || take("param::func")) return Space::param;
  return Space::generic;
}

int Decoder::take_vector() {
  return take("v2") ? 2 : take("v4") ? 4 : take("v8") ? 8 : 1;
}

const Operand& Decoder::operand(size_t index) const {
  if (index >= statement_.operands.size()) fail("an operand is missing");
  return statement_.operands[index];
}

void Decoder::expect_operands(size_t count) const {
  if (operand_count() != count) fail(format("%zu operands, expected %zu", operand_count(), count));
}

void Decoder::destination(const Operand& operand, Type type, Width width) {
  const uint8_t k = out_.destinations++;
  if (operand.kind == Operand::name && operand.text == "_") {
    out_.destination[k] = assembler_.discard();
    out_.destination_size[k] = static_cast<uint8_t>(bytes_of(type));
    return;
  }
  const Assembler::Register* r =
      operand.kind == Operand::name ? assembler_.find_register(operand.text) : nullptr;
  if (!r || r->type == Type::pred) fail("'" + operand.text + "' is no register that could take the result");
  const uint32_t have = bytes_of(r->type), need = bytes_of(type);
  if (width == exact ? have != need : have < need) {
    fail(format("register %s has %u bytes, the result %u", operand.text.c_str(), have, need));
  }
  out_.destination[k] = r->place;
  out_.destination_size[k] = static_cast<uint8_t>(have);
}

void Decoder::no_source() {
  ++out_.sources;
}

void Decoder::destination_predicate(const Operand& operand) {
  const uint8_t k = out_.destinations++;
  if (operand.text == "_") {
    out_.destination[k] = assembler_.discard();
    return;
  }
  const Assembler::Register* r = assembler_.find_register(operand.text);
  if (!r || r->type != Type::pred) fail("'" + operand.text + "' is no predicate register");
  out_.destination[k] = r->place;
}

static bool is_special(const std::string& name) {
  static const std::set<std::string> known = {
      "%tid.x",
      "%tid.y",
      "%tid.z",
      "%ntid.x",
      "%ntid.y",
      "%ntid.z",
      "%ctaid.x",
      "%ctaid.y",
      "%ctaid.z",
      "%nctaid.x",
      "%nctaid.y",
      "%nctaid.z",
      "%laneid",
      "%warpid",
      "%nwarpid",
      "%smid",
      "%nsmid",
      "%gridid",
      "%lanemask_eq",
      "%lanemask_le",
      "%lanemask_lt",
      "%lanemask_ge",
      "%lanemask_gt",
      "%dynamic_smem_size",
      "%total_smem_size",
      "%cluster_ctaid.x",
      "%cluster_ctaid.y",
      "%cluster_ctaid.z",
      "%cluster_ctarank",
      "%cluster_nctaid.x",
      "%cluster_nctaid.y",
      "%cluster_nctaid.z",
      "%cluster_nctarank",
      "%clusterid.x",
      "%clusterid.y",
      "%clusterid.z",
      "%nclusterid.x",
      "%nclusterid.y",
      "%nclusterid.z",
      "%is_explicit_cluster",
  };
  return known.count(name) != 0;
}

void Decoder::source(const Operand& operand, Type type, Width width) {
  const uint8_t k = out_.sources++;
  const uint32_t need = bytes_of(type);
  out_.source_size[k] = static_cast<uint8_t>(need);
  if (operand.kind == Operand::number) {
    out_.source[k] = assembler_.constant(number_bits(operand.text, operand.negated, type), need);
    return;
  }
  if (operand.kind != Operand::name || operand.negated) fail("an operand is neither a register nor a number");
  if (const Assembler::Register* r = assembler_.find_register(operand.text)) {
    const uint32_t have = bytes_of(r->type);
    if (r->type == Type::pred) fail("predicate " + operand.text + " stands where a value is expected");
    if (width == exact ? have != need : have < need) {
      fail(format("register %s has %u bytes, the instruction reads %u", operand.text.c_str(), have, need));
    }
    out_.source[k] = r->place;
    out_.source_size[k] = static_cast<uint8_t>(have);
    return;
  }
  if (operand.text[0] == '%') {
    if (!is_special(operand.text))
      fail("register " + operand.text + " is neither declared nor a special register of the emulator");
    out_.source[k] = assembler_.special(operand.text);
    if (need != 4) fail("special registers have 4 bytes");
    return;
  }
  const Assembler::Symbol* symbol = assembler_.find_symbol(operand.text);
  if (!symbol) fail("'" + operand.text + "' is not declared");
  out_.source[k] = assembler_.constant(symbol->address + operand.offset, need);
}

bool Decoder::is_predicate(const Operand& operand) const {
  const Assembler::Register* r =
      operand.kind == Operand::name ? assembler_.find_register(operand.text) : nullptr;
  return r && r->type == Type::pred;
}

void Decoder::source_predicate(const Operand& operand) {
  const uint8_t k = out_.sources++;
  out_.source_size[k] = 4;
  if (operand.kind == Operand::number) {
    const bool value = number_bits(operand.text, false, Type::u32) != 0;
    out_.source[k] = assembler_.constant(value ? kAllLanes : 0, 4);
    return;
  }
  if (!is_predicate(operand)) fail("'" + operand.text + "' is no predicate");
  out_.source[k] = assembler_.find_register(operand.text)->place;
  if (operand.negated) out_.negated |= 1u << k;
}

void Decoder::address(const Operand& operand) {
  if (operand.kind != Operand::address || operand.parts.size() != 1) fail("expected an address in brackets");
  const Operand& base = operand.parts[0];
  out_.offset = base.offset;
  out_.address = 0;
  if (base.kind == Operand::number) {
    out_.offset += static_cast<int64_t>(number_bits(base.text, base.negated, Type::s64));
  } else if (const Assembler::Register* r = assembler_.find_register(base.text)) {
    out_.address = r->place;
    out_.address_size = static_cast<uint8_t>(bytes_of(r->type));
    if (out_.address_size != 4 && out_.address_size != 8) fail("an address register has 4 or 8 bytes");
  } else if (const Assembler::Symbol* symbol = assembler_.find_symbol(base.text)) {
    out_.offset += static_cast<int64_t>(symbol->address);
    if (out_.space == Space::generic) out_.space = symbol->space;
  } else {
    fail("'" + base.text + "' is not declared");
  }
}

int64_t Decoder::constant(const Operand& operand) const {
  if (operand.kind != Operand::number) fail("an operand must be a constant");
  return static_cast<int64_t>(number_bits(operand.text, operand.negated, Type::s64));
}

std::vector<Operand> Decoder::elements(const Operand& operand, size_t count) const {
  if (operand.kind != Operand::vector) {
    if (count != 1) fail(format("expected a vector of %zu registers", count));
    return {operand};
  }
  if (operand.parts.size() != count)
    fail(format("a vector of %zu registers, expected %zu", operand.parts.size(), count));
  return operand.parts;
}

void Decoder::values(size_t destinations, size_t sources, Type type) {
  expect_operands(destinations + sources);
  for (size_t i = 0; i < destinations; ++i) destination(operand(i), type);
  for (size_t i = 0; i < sources; ++i) source(operand(destinations + i), type);
}

void Decoder::branch_to(const std::string& label) {
  assembler_.jump(label, false);
}
void Decoder::branch_by_table(const std::string& table) {
  assembler_.jump(table, true);
}

bool Decoder::is_defined_function(const std::string& name) const {
  const Function* function = assembler_.find_function(name);
  return function && function->defined;
}

void Decoder::call(const std::string& function, const std::vector<Operand>& results,
                   const std::vector<Operand>& arguments) {
  CallSite site;
  site.function = function;
  auto place = [&](const Operand& operand) {
    const Assembler::Symbol* symbol = assembler_.find_symbol(operand.text);
    if (!symbol || symbol->space != Space::param) fail("'" + operand.text + "' is no .param variable");
    return symbol->address - kThreadParam;
  };
  for (const Operand& a : arguments) site.arguments.push_back({place(a), 0, 0});
  for (const Operand& r : results) site.results.push_back({0, place(r), 0});
  out_.table = assembler_.call(std::move(site));
}

void Decoder::run(Handler handler) {
  if (!handler) unsupported("not for this type");
  out_.run = handler;
}

void Decoder::finish() const {
  for (size_t i = 1; i < words_.size(); ++i) {
    if (!claimed_[i]) unsupported("modifier ." + words_[i]);
  }
}

const InstructionSet& InstructionSet::all() {
  static const InstructionSet set = [] {
    InstructionSet s;
    for (auto add : {add_integer, add_bits, add_float, add_half, add_convert, add_compare_select, add_move,
                     add_memory_access, add_async_copy, add_atomics, add_control, add_warp_collectives,
                     add_matrix_moves, add_mma}) {
      add(s);
    }
    return s;
  }();
  return set;
}

void InstructionSet::decode(Decoder& decoder) const {
  const auto [begin, end] = decoders_.equal_range(decoder.mnemonic());
  if (begin == end) decoder.unsupported("unknown mnemonic");
  for (auto candidate = begin; candidate != end; ++candidate) {
    if (candidate->second(decoder)) return decoder.finish();
  }
  decoder.unsupported("not for these types");
}

}  // namespace pyconvx::emulator
