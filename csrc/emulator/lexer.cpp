#include "lexer.h"

#include <cctype>

#include "types.h"

namespace pyconvx::emulator {

static bool in_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

std::vector<Token> tokenize(std::string_view ptx) {
  std::vector<Token> tokens;
  tokens.reserve(ptx.size() / 4);
  int line = 1;
  size_t at = 0;
  auto peek = [&](size_t ahead) { return at + ahead < ptx.size() ? ptx[at + ahead] : '\0'; };
  while (at < ptx.size()) {
    const char c = ptx[at];
    const size_t begin = at;
    if (c == '\n') {
      ++line, ++at;
    } else if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
      ++at;  // texts from a compiler's API often end in a zero byte
    } else if (c == '/' && peek(1) == '/') {
      while (at < ptx.size() && ptx[at] != '\n') ++at;
    } else if (c == '/' && peek(1) == '*') {
      for (at += 2; at < ptx.size() && !(ptx[at] == '*' && peek(1) == '/'); ++at) line += ptx[at] == '\n';
      at += 2;
    } else if (c == '"') {
      for (++at; at < ptx.size() && ptx[at] != '"'; ++at) line += ptx[at] == '\n';
      if (at >= ptx.size()) throw Error(format("PTX line %d: a text in quotes is never closed", line));
      tokens.push_back({Token::text, line, ptx.substr(begin + 1, at - begin - 1)});
      ++at;
    } else if (in_word(c)) {
      const bool number = std::isdigit(static_cast<unsigned char>(c));
      const bool hexadecimal = number && (peek(1) == 'x' || peek(1) == 'X' || peek(1) == 'f' ||
                                          peek(1) == 'F' || peek(1) == 'd' || peek(1) == 'D');
      while (at < ptx.size()) {
        if (in_word(ptx[at]))
          ++at;
        else if (!number && ptx[at] == ':' && peek(1) == ':')
          at += 2;  // .shared::cta
        else if (number && !hexadecimal && (ptx[at] == '-' || ptx[at] == '+') &&
                 (ptx[at - 1] == 'e' || ptx[at - 1] == 'E'))
          ++at;
        else
          break;
      }
      tokens.push_back({Token::word, line, ptx.substr(begin, at - begin)});
    } else {
      tokens.push_back({Token::mark, line, ptx.substr(at++, 1)});
    }
  }
  tokens.push_back({Token::end, line, ""});
  return tokens;
}

}  // namespace pyconvx::emulator
