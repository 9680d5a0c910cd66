// Follows every byte of a block's shared memory: who wrote it last and when, who read it since, whether a
// cp.async to it is on its way. Two accesses, one of them a write, that no synchronisation orders are a race,
// whatever the emulator's own order made of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "happens_before.h"
#include "types.h"

namespace pyconvx::emulator {

struct SharedAccess {
  uint32_t warp;
  int lane;
  uint32_t address, bytes;
  bool synchronizing;  // atomic, volatile: no race among themselves
  bool whole_warp;     // ldmatrix: the lane gives the address, all lanes get the data
};

struct Finding {
  const char* kind = nullptr;  // null: nothing wrong
  std::string message;
};

class SharedChecker {
public:
  void resize(uint32_t bytes, uint32_t warps);
  void begin_block(HappensBefore& order);

  Finding read(const SharedAccess& access);
  // `before` and `data` are the bytes in memory and those to be written: lanes that write one value do not
  // race.
  Finding write(const SharedAccess& access, const uint8_t* before, const uint8_t* data);
  Finding issue_copy(const SharedAccess& access);
  void finish_copy(const SharedAccess& access);

private:
  static constexpr Time kInFlight = ~Time(0);
  static constexpr uint32_t kSeveralLanes = 32;
  static constexpr int kLaneBits = 6;

  Finding slow_read(const SharedAccess& access) const;
  void remember_read(const SharedAccess& access);
  Finding check_write(const SharedAccess& access, const uint8_t* before, const uint8_t* data) const;
  void remember_write(const SharedAccess& access, Time when);
  Finding slow_write(const SharedAccess& access, const uint8_t* before, const uint8_t* data) const;
  Finding reader_conflict(const SharedAccess& access, uint32_t byte) const;
  std::string thread(uint32_t byte) const;

  HappensBefore* order_ = nullptr;
  uint32_t bytes_ = 0, warps_ = 0;
  // By byte. A byte is initialised if it was written since the block began.
  std::vector<Time> written_;     // kInFlight while a cp.async to it is not waited for
  std::vector<uint16_t> writer_;  // thread of the block
  std::vector<uint8_t> synchronizing_;
  std::vector<Time> last_read_;  // by anybody
  std::vector<uint32_t> reads_;  // [warp][byte]: time and lane of that warp's last read
};

}  // namespace pyconvx::emulator
