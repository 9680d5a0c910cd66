#include "parser.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "lexer.h"
#include "number_formats.h"

namespace pyconvx::emulator {

uint64_t number_bits(const std::string& spelling, bool negative, Type type) {
  const char* begin = spelling.c_str();
  char* end = nullptr;
  auto whole = [&](uint64_t bits) {
    if (*end == 'U') ++end;
    if (*end || spelling.empty()) throw Error("'" + spelling + "' is no number");
    return bits;
  };
  auto from_double = [&](double value) -> uint64_t {
    if (negative) value = -value;
    switch (type) {
    case Type::f64:
      return bit_cast<uint64_t>(value);
    case Type::f16:
      return encode(value, kHalf);
    case Type::bf16:
      return encode(value, kBfloat);
    default:
      return bit_cast<uint32_t>(static_cast<float>(value));
    }
  };
  const char second = spelling.size() > 1 ? static_cast<char>(std::tolower(spelling[1])) : '\0';
  if (spelling[0] == '0' && second == 'f') {
    const uint32_t bits = static_cast<uint32_t>(whole(std::strtoull(begin + 2, &end, 16)));
    return type == Type::f64 ? from_double(bit_cast<float>(bits)) : bits ^ (negative ? 0x80000000u : 0);
  }
  if (spelling[0] == '0' && second == 'd') {
    const uint64_t bits = whole(std::strtoull(begin + 2, &end, 16));
    return type == Type::f32 ? from_double(bit_cast<double>(bits))
                             : bits ^ (negative ? uint64_t(1) << 63 : 0);
  }
  const bool hexadecimal = second == 'x';
  if (!hexadecimal && spelling.find_first_of(".eE") != std::string::npos) {
    const double value = std::strtod(begin, &end);
    whole(0);
    return from_double(value);
  }
  const uint64_t bits =
      whole(second == 'b' ? std::strtoull(begin + 2, &end, 2) : std::strtoull(begin, &end, 0));
  if (is_float(type) && type != Type::f16x2 && type != Type::bf16x2)
    return from_double(static_cast<double>(bits));
  return negative ? 0 - bits : bits;
}

namespace {

class Parser {
public:
  explicit Parser(std::string_view ptx) : tokens_(tokenize(ptx)) {
    module_.lines.emplace_back();
    for (size_t begin = 0; begin <= ptx.size();) {
      const size_t end = std::min(ptx.find('\n', begin), ptx.size());
      std::string_view text = ptx.substr(begin, end - begin);
      while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
      while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
      module_.lines.emplace_back(text);
      begin = end + 1;
    }
  }

  Module parse() {
    bool external = false;
    while (here().kind != Token::end) {
      const int line = here().line;
      const std::string word(take().spelling);
      if (word == ".version" || word == ".address_size") {
        if (take().is("32")) fail("32-bit addresses are not supported: compile with -m64");
      } else if (word == ".target") {
        module_.target = take_word();
        while (skip(',')) take();
      } else if (word == ".file") {
        const int index = take_integer();
        module_.files[index] = std::string(take().spelling);
        while (skip(',')) take();
      } else if (word == ".section") {
        while (!here().is('{')) take();
        skip_braces();
      } else if (word == ".visible" || word == ".weak" || word == ".common") {
      } else if (word == ".extern") {
        external = true;
      } else if (word == ".global" || word == ".const" || word == ".shared") {
        for (Variable& variable : declarations(word, external))
          module_.variables.push_back(std::move(variable));
        external = false;
      } else if (word == ".entry" || word == ".func") {
        function(word == ".entry", line);
        external = false;
      } else if (word == ".loc") {
        location();
      } else if (word == ".pragma" || word == ".alias") {
        while (!skip(';')) take();
      } else {
        --at_;
        fail("this is not understood outside a function");
      }
    }
    return std::move(module_);
  }

private:
  const Token& here() const { return tokens_[at_]; }
  const Token& ahead(size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  const Token& take() {
    if (here().kind == Token::end) fail("the text ends in the middle of something");
    return tokens_[at_++];
  }
  bool skip(char c) {
    if (!here().is(c)) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!skip(c)) fail(format("expected '%c'", c));
  }
  std::string take_word() {
    if (here().kind != Token::word) fail("expected a name");
    return std::string(take().spelling);
  }
  int take_integer() { return static_cast<int>(number_bits(take_word(), false, Type::u32)); }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(format("PTX line %d: %s, got '%s' in: %s", here().line, what.c_str(),
                       std::string(here().spelling).c_str(), module_.lines[here().line].c_str()));
  }
  void skip_braces() {
    int depth = 0;
    do {
      if (here().is('{')) ++depth;
      if (here().is('}')) --depth;
      take();
    } while (depth);
  }

  // .loc file line column [, function_name label, inlined_at file line column]
  void location() {
    source_.file = take_integer();
    source_.line = take_integer();
    take();
    if (!here().is(',')) return;
    const int line = here().line;  // the rest stands on the same line and has no closing mark
    while (here().line == line && here().kind != Token::end) take();
  }

  // What follows the state space: [.align n] [.v2|.v4] .type name[dimensions] [= initialiser] {, name ...}
  Variable declaration(Space space) {
    Variable variable;
    variable.space = space;
    uint32_t align = 0, vector = 1;
    for (;;) {
      const std::string word = take_word();
      if (word == ".align")
        align = static_cast<uint32_t>(take_integer());
      else if (word == ".v2")
        vector = 2;
      else if (word == ".v4")
        vector = 4;
      else if (word == ".ptr")
        pointed_to();
      else if (word == ".attribute")
        while (!skip(')')) take();
      else if (word[0] == '.') {
        const Type type = type_named(word.substr(1));
        if (type != Type::none) variable.type = type;
      } else {
        variable.name = word;
        break;
      }
    }
    if (variable.type == Type::none) fail("'" + variable.name + "' is declared without a type");
    variable.count = vector;
    while (skip('[')) {
      if (here().is(']'))
        variable.external = true;
      else
        variable.count *= number_bits(take_word(), false, Type::u64);
      expect(']');
    }
    variable.align = align ? align : std::max(1u, bytes_of(variable.type) * vector);
    return variable;
  }

  // The attributes of a pointer parameter (".ptr .global .align 16") say nothing that execution needs.
  void pointed_to() {
    while (here().kind == Token::word && here().spelling[0] == '.') {
      if (take().is(".align")) take();
    }
  }

  std::vector<Variable> declarations(const std::string& word, bool external) {
    const Space space = word == ".global"   ? Space::global
                        : word == ".const"  ? Space::constant
                        : word == ".shared" ? Space::shared
                        : word == ".local"  ? Space::local
                                            : Space::param;
    std::vector<Variable> all;
    all.push_back(declaration(space));
    all.back().external |= external;
    if (skip('=')) initialiser(all.back());
    while (skip(',')) {
      Variable next = all.front();
      next.name = take_word();
      next.initial.clear();
      next.count = 1;
      while (skip('[')) {
        next.count *= number_bits(take_word(), false, Type::u64);
        expect(']');
      }
      if (skip('=')) initialiser(next);
      all.push_back(std::move(next));
    }
    expect(';');
    return all;
  }

  void initialiser(Variable& variable) {
    const uint32_t size = bytes_of(variable.type);
    int depth = 0;
    do {
      if (skip('{'))
        ++depth;
      else if (skip('}'))
        --depth;
      else if (skip(','))
        continue;
      else {
        const bool negative = skip('-');
        const std::string word = take_word();
        if (!std::isdigit(static_cast<unsigned char>(word[0]))) {
          variable.has_addresses = true;
          while (!here().is(',') && !here().is('}') && !here().is(';')) take();
          continue;
        }
        const uint64_t bits = number_bits(word, negative, variable.type);
        const auto* bytes = reinterpret_cast<const uint8_t*>(&bits);
        variable.initial.insert(variable.initial.end(), bytes, bytes + size);
      }
    } while (depth);
  }

  std::vector<Variable> parameters() {
    std::vector<Variable> all;
    if (!skip('(')) return all;
    while (!skip(')')) {
      if (!here().is(".param") && !here().is(".reg")) fail("expected a parameter");
      take();
      all.push_back(declaration(Space::param));
      skip(',');
    }
    return all;
  }

  void function(bool entry, int line) {
    Function f;
    f.entry = entry;
    f.line = line;
    f.results = parameters();
    f.name = take_word();
    f.parameters = parameters();
    while (!here().is('{') && !here().is(';')) {
      const bool required = here().is(".reqntid");
      if (required || here().is(".maxntid")) {
        take();
        f.max_threads = 1;
        std::vector<uint32_t> extents;
        do extents.push_back(static_cast<uint32_t>(take_integer()));
        while (skip(','));
        for (uint32_t extent : extents) f.max_threads *= extent;
        extents.resize(3, 1);
        if (required) f.required_block = extents;
      } else {
        take();
      }
    }
    if (skip(';')) {
      module_.functions.emplace(f.name, std::move(f));
      return;
    }
    f.defined = true;
    source_ = {};
    expect('{');
    for (int depth = 1; depth;) statement(f.body, depth);
    module_.functions[f.name] = std::move(f);
  }

  void statement(std::vector<Statement>& body, int& depth) {
    Statement s{};
    s.line = here().line;
    s.source = source_;
    if (skip('{')) {
      ++depth;
      s.kind = Statement::open_scope;
      body.push_back(s);
    } else if (skip('}')) {
      if (!--depth) return;
      s.kind = Statement::close_scope;
      body.push_back(s);
    } else if (skip(';')) {
    } else if (here().is(".loc")) {
      take();
      location();
    } else if (here().is(".pragma")) {
      while (!skip(';')) take();
    } else if (here().is(".reg")) {
      take();
      registers(body, s);
    } else if (here().is(".shared") || here().is(".local") || here().is(".param") || here().is(".global") ||
               here().is(".const")) {
      const std::string space = take_word();
      s.kind = Statement::variable;
      for (Variable& variable : declarations(space, false)) {
        s.declared = std::move(variable);
        body.push_back(s);
      }
    } else if (here().kind == Token::word && ahead(1).is(':')) {
      s.text = take_word();
      take();
      s.kind = Statement::label;
      if (here().is(".branchtargets")) {
        take();
        s.kind = Statement::targets;
        do s.operands.push_back(operand());
        while (skip(','));
        expect(';');
      } else if (here().is(".callprototype")) {
        while (!skip(';')) take();
        return;
      }
      body.push_back(s);
    } else {
      instruction(body, s);
    }
  }

  // .reg .b32 %r<100>, x;
  void registers(std::vector<Statement>& body, Statement& s) {
    s.kind = Statement::registers;
    const std::string type = take_word();
    s.declared.type = type_named(type.substr(1));
    if (s.declared.type == Type::none) fail("registers of type " + type + " are not supported");
    do {
      s.text = take_word();
      s.register_count = -1;
      if (skip('<')) {
        s.register_count = take_integer();
        expect('>');
      }
      body.push_back(s);
    } while (skip(','));
    expect(';');
  }

  void instruction(std::vector<Statement>& body, Statement& s) {
    s.kind = Statement::instruction;
    if (skip('@')) {
      s.guard_negated = skip('!');
      s.guard = take_word();
    }
    s.line = here().line;
    s.text = take_word();
    if (!std::isalpha(static_cast<unsigned char>(s.text[0])) && s.text[0] != '_') {
      --at_;
      fail("this is no instruction");
    }
    while (!skip(';')) {
      s.operands.push_back(operand());
      if (!here().is(';')) expect(',');
    }
    body.push_back(s);
  }

  std::vector<Operand> operands_until(char close) {
    std::vector<Operand> parts;
    while (!skip(close)) {
      parts.push_back(operand());
      if (!here().is(close)) expect(',');
    }
    return parts;
  }

  Operand operand() {
    Operand o;
    if (skip('{')) {
      o.kind = Operand::vector;
      o.parts = operands_until('}');
      return o;
    }
    if (skip('[')) {
      o.kind = Operand::address;
      o.parts = operands_until(']');
      return o;
    }
    if (skip('(')) {
      o.kind = Operand::list;
      o.parts = operands_until(')');
      return o;
    }
    while (here().is('!') || here().is('-') || here().is('+')) o.negated ^= !take().is('+');
    o.text = take_word();
    if (std::isdigit(static_cast<unsigned char>(o.text[0]))) {
      o.kind = Operand::number;
      return o;
    }
    if (skip('|')) o.second = take_word();
    while (here().is('+') || here().is('-')) {
      bool negative = take().is('-');
      if (skip('-')) negative = !negative;
      o.offset += static_cast<int64_t>(number_bits(take_word(), negative, Type::s64));
    }
    return o;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Module module_;
  SourceLine source_;
};

}  // namespace

Module parse(std::string_view ptx) {
  return Parser(ptx).parse();
}

}  // namespace pyconvx::emulator
