// PTX text -> words and punctuation, each with its line. Comments go away here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pyconvx::emulator {

struct Token {
  enum Kind : unsigned char { word, text, mark, end };
  Kind kind;
  int line;                   // 1 is the first line of the PTX
  std::string_view spelling;  // into the text given to tokenize(); a text token has no quotes

  bool is(char c) const { return kind == mark && spelling[0] == c; }
  bool is(std::string_view s) const { return kind == word && spelling == s; }
};

// A word is a name, a number, a directive or a whole opcode ("ld.global.v4.f32", "shared::cta").
std::vector<Token> tokenize(std::string_view ptx);

}  // namespace pyconvx::emulator
