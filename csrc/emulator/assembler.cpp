#include "assembler.h"

#include <algorithm>
#include <cstdlib>

#include "decoder.h"

namespace pyconvx::emulator {

static uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

Assembler::Assembler(const Module& module, const std::string& kernel) : module_(module) {
  program_.kernel = kernel;
  program_.module = &module;
  program_.register_bytes = kRegisterHeader;  // place 0 means "no register"
}

Program Assembler::assemble() {
  const Function* kernel = find_function(program_.kernel);
  if (!kernel || !kernel->entry) throw Error("the PTX has no kernel named " + program_.kernel);
  program_.parameters = kernel->parameters;
  program_.max_threads = kernel->max_threads;
  program_.required_block = kernel->required_block;
  for (size_t i = 0; i < module_.variables.size(); ++i) {
    const Variable& v = module_.variables[i];
    if (v.space != Space::shared) {
      module_symbols_[v.name] = {v.space, window_address(kFirstModuleVariable + i), v.bytes()};
    }
  }
  const std::vector<std::string> functions = reachable_functions(program_.kernel);
  place_shared(functions);
  for (const std::string& name : functions) assemble_function(module_.functions.at(name));
  resolve_calls();
  program_.entry = function_entry_.at(program_.kernel);
  program_.local_bytes = static_cast<uint32_t>(round_up(program_.local_bytes, 16));
  return std::move(program_);
}

std::vector<std::string> Assembler::reachable_functions(const std::string& kernel) const {
  std::vector<std::string> found{kernel};
  for (size_t i = 0; i < found.size(); ++i) {
    for (const Statement& s : module_.functions.at(found[i]).body) {
      if (s.kind != Statement::instruction || s.text.compare(0, 4, "call") != 0) continue;
      for (const Operand& o : s.operands) {
        const Function* callee = o.kind == Operand::name ? find_function(o.text) : nullptr;
        if (callee && callee->defined && std::find(found.begin(), found.end(), o.text) == found.end()) {
          found.push_back(o.text);
        }
      }
    }
  }
  return found;
}

static void collect_names(const Operand& operand, std::set<std::string>& names) {
  if (operand.kind == Operand::name) names.insert(operand.text);
  for (const Operand& part : operand.parts) collect_names(part, names);
}

// A module declares the shared variables of all its kernels; a kernel pays for those it names. Dynamic shared
// memory has no size of its own and begins behind the static part.
void Assembler::place_shared(const std::vector<std::string>& functions) {
  std::set<std::string> names;
  std::vector<const Variable*> inner;
  for (const std::string& function : functions) {
    for (const Statement& s : module_.functions.at(function).body) {
      for (const Operand& o : s.operands) collect_names(o, names);
      if (s.kind == Statement::variable && s.declared.space == Space::shared) inner.push_back(&s.declared);
    }
  }
  uint32_t dynamic_align = 16;
  for (const Variable& v : module_.variables) {
    if (v.space != Space::shared || !names.count(v.name)) continue;
    if (v.external)
      dynamic_align = std::max(dynamic_align, v.align);
    else
      add_shared(v, module_symbols_);
  }
  for (const Variable* v : inner) add_shared(*v, module_symbols_);
  if (program_.static_shared)
    program_.static_shared = static_cast<uint32_t>(round_up(program_.static_shared, dynamic_align));
  for (const Variable& v : module_.variables) {
    if (v.space == Space::shared && v.external)
      module_symbols_[v.name] = {Space::shared, program_.static_shared, 0};
  }
}

void Assembler::add_shared(const Variable& variable, std::map<std::string, Symbol>& into) {
  program_.static_shared = static_cast<uint32_t>(round_up(program_.static_shared, variable.align));
  into[variable.name] = {Space::shared, program_.static_shared, variable.bytes()};
  program_.static_shared += static_cast<uint32_t>(variable.bytes());
}

uint32_t Assembler::allocate_register(uint32_t bytes) {
  const uint32_t place = program_.register_bytes + kRegisterHeader;
  program_.register_bytes = static_cast<uint32_t>(round_up(place + bytes, kRegisterHeader));
  return place;
}

const Assembler::Register* Assembler::find_register(const std::string& name) {
  size_t digits = name.size();
  while (digits && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
  const std::string prefix = name.substr(0, digits);
  const long index = digits < name.size() ? std::strtol(name.c_str() + digits, nullptr, 10) : -1;
  for (int s = scope_; s >= 0; s = scopes_[s].parent) {
    Scope& scope = scopes_[s];
    if (auto known = scope.registers.find(name); known != scope.registers.end()) return &known->second;
    auto declared = scope.declared.find(name);
    if (declared == scope.declared.end() || declared->second.second >= 0) {
      declared = scope.declared.find(prefix);
      if (declared == scope.declared.end() || index < 0 || index >= declared->second.second) continue;
    }
    const Type type = declared->second.first;
    const uint32_t place = allocate_register(type == Type::pred ? 4 : kLanes * bytes_of(type));
    program_.registers.push_back(place);
    return &(scope.registers[name] = {place, type});
  }
  return nullptr;
}

const Assembler::Symbol* Assembler::find_symbol(const std::string& name) const {
  for (int s = scope_; s >= 0; s = scopes_[s].parent) {
    if (auto found = scopes_[s].symbols.find(name); found != scopes_[s].symbols.end()) return &found->second;
  }
  auto found = module_symbols_.find(name);
  return found == module_symbols_.end() ? nullptr : &found->second;
}

const Function* Assembler::find_function(const std::string& name) const {
  auto found = module_.functions.find(name);
  return found == module_.functions.end() ? nullptr : &found->second;
}

uint32_t Assembler::constant(uint64_t bits, uint32_t bytes) {
  if (bytes < 8) bits &= (uint64_t(1) << 8 * bytes) - 1;
  uint32_t& place = program_.constants[{bits, bytes}];
  if (!place) place = allocate_register(kLanes * bytes);
  return place;
}

uint32_t Assembler::special(const std::string& name) {
  for (const auto& known : program_.specials) {
    if (known.first == name) return known.second;
  }
  program_.specials.emplace_back(name, allocate_register(kLanes * 8));
  return program_.specials.back().second;
}

uint32_t Assembler::discard() {
  if (!discard_) discard_ = allocate_register(kLanes * 16);
  return discard_;
}

void Assembler::declare(const Variable& variable) {
  Scope& scope = scopes_[scope_];
  if (variable.space == Space::shared) return;  // placed before
  if (variable.space != Space::local && variable.space != Space::param) {
    throw Error("variable " + variable.name + " of a function must be .shared, .local or .param");
  }
  uint32_t& used = variable.space == Space::local ? program_.local_bytes : program_.thread_param_bytes;
  used = static_cast<uint32_t>(round_up(used, variable.align));
  const uint64_t base = variable.space == Space::local ? 0 : kThreadParam;
  scope.symbols[variable.name] = {variable.space, base + used, variable.bytes()};
  used += static_cast<uint32_t>(variable.bytes());
}

void Assembler::assemble_function(const Function& function) {
  function_entry_[function.name] = static_cast<int>(program_.code.size());
  scopes_.assign(1, Scope{-1, {}, {}, {}, {}, {}});
  scope_ = 0;
  jumps_.clear();
  if (function.entry) {
    for (const Variable& p : function.parameters) {
      program_.parameter_bytes = static_cast<uint32_t>(round_up(program_.parameter_bytes, p.align));
      program_.parameter_offsets.push_back(program_.parameter_bytes);
      scopes_[0].symbols[p.name] = {Space::param, program_.parameter_bytes, p.bytes()};
      program_.parameter_bytes += static_cast<uint32_t>(p.bytes());
    }
  } else {
    for (const Variable& p : function.parameters) {
      declare(p);
      function_parameters_[function.name].push_back(*find_symbol(p.name));
    }
    for (const Variable& p : function.results) {
      declare(p);
      function_results_[function.name].push_back(*find_symbol(p.name));
    }
  }
  int line = function.line;
  for (const Statement& s : function.body) {
    line = s.line;
    switch (s.kind) {
    case Statement::open_scope:
      scopes_.push_back(Scope{scope_, {}, {}, {}, {}, {}});
      scope_ = static_cast<int>(scopes_.size()) - 1;
      break;
    case Statement::close_scope:
      scope_ = scopes_[scope_].parent;
      break;
    case Statement::registers:
      scopes_[scope_].declared[s.text] = {s.declared.type, s.register_count};
      break;
    case Statement::variable:
      declare(s.declared);
      break;
    case Statement::label:
      scopes_[scope_].labels[s.text] = static_cast<int>(program_.code.size());
      break;
    case Statement::targets:
      for (const Operand& o : s.operands) scopes_[scope_].tables[s.text].push_back(o.text);
      break;
    case Statement::instruction:
      assemble_instruction(s);
      break;
    }
  }
  Statement end{};  // a body may end without ret
  end.kind = Statement::instruction;
  end.line = line;
  end.text = "ret";
  assemble_instruction(end);
  resolve_jumps();
}

void Assembler::assemble_instruction(const Statement& s) {
  Instruction instruction;
  instruction.line = s.line;
  instruction.source_line = s.source;
  auto known = std::find(program_.opcodes.begin(), program_.opcodes.end(), s.text);
  instruction.opcode = static_cast<int>(known - program_.opcodes.begin());
  if (known == program_.opcodes.end()) program_.opcodes.push_back(s.text);
  Decoder decoder(*this, s, instruction);
  if (!s.guard.empty()) {
    const Register* guard = find_register(s.guard);
    if (!guard || guard->type != Type::pred)
      decoder.fail("the guard " + s.guard + " is no predicate register");
    instruction.guard = guard->place;
    instruction.guard_negated = s.guard_negated;
  }
  InstructionSet::all().decode(decoder);
  program_.code.push_back(instruction);
}

void Assembler::jump(const std::string& label, bool table) {
  jumps_.push_back({static_cast<int>(program_.code.size()), scope_, label, table});
}

int Assembler::call(CallSite site) {
  program_.calls.push_back(std::move(site));
  return static_cast<int>(program_.calls.size()) - 1;
}

int Assembler::label(const Jump& jump, const std::string& name) const {
  for (int s = jump.scope; s >= 0; s = scopes_[s].parent) {
    if (auto found = scopes_[s].labels.find(name); found != scopes_[s].labels.end()) return found->second;
  }
  throw Error(
      format("PTX line %d: label %s is not defined", program_.code[jump.instruction].line, name.c_str()));
}

void Assembler::resolve_jumps() {
  for (const Jump& jump : jumps_) {
    Instruction& instruction = program_.code[jump.instruction];
    if (!jump.table) {
      instruction.target = label(jump, jump.label);
      continue;
    }
    const std::vector<std::string>* names = nullptr;
    for (int s = jump.scope; s >= 0 && !names; s = scopes_[s].parent) {
      auto found = scopes_[s].tables.find(jump.label);
      if (found != scopes_[s].tables.end()) names = &found->second;
    }
    if (!names)
      throw Error(
          format("PTX line %d: branch table %s is not defined", instruction.line, jump.label.c_str()));
    std::vector<int> targets;
    for (const std::string& name : *names) targets.push_back(label(jump, name));
    instruction.table = static_cast<int>(program_.branch_tables.size());
    program_.branch_tables.push_back(targets);
  }
}

// The caller names places in its own .param space; where the callee's are is known once it has been
// assembled.
void Assembler::resolve_calls() {
  for (Instruction& instruction : program_.code) {
    if (instruction.flow != Flow::call) continue;
    CallSite& site = program_.calls[instruction.table];
    const auto& parameters = function_parameters_[site.function];
    const auto& results = function_results_[site.function];
    if (parameters.size() != site.arguments.size() || results.size() != site.results.size()) {
      throw Error(format("PTX line %d: %s takes %zu arguments and returns %zu, the call has %zu and %zu",
                         instruction.line, site.function.c_str(), parameters.size(), results.size(),
                         site.arguments.size(), site.results.size()));
    }
    for (size_t i = 0; i < parameters.size(); ++i) {
      site.arguments[i].to = parameters[i].address - kThreadParam;
      site.arguments[i].bytes = parameters[i].bytes;
    }
    for (size_t i = 0; i < results.size(); ++i) {
      site.results[i].from = results[i].address - kThreadParam;
      site.results[i].bytes = results[i].bytes;
    }
    instruction.target = function_entry_.at(site.function);
  }
}

}  // namespace pyconvx::emulator
