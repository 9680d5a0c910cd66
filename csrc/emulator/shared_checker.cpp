#include "shared_checker.h"

#include <type_traits>

#include "reports.h"

namespace pyconvx::emulator {

// body(how many bytes): as a constant where an access is of a common width, so that loops over its bytes
// become vector code.
template <class Body>
static inline void for_width(uint32_t bytes, Body&& body) {
  if (bytes == 16)
    body(std::integral_constant<uint32_t, 16>{});
  else if (bytes == 4)
    body(std::integral_constant<uint32_t, 4>{});
  else
    body(bytes);
}

void SharedChecker::resize(uint32_t bytes, uint32_t warps) {
  bytes_ = bytes;
  warps_ = warps;
  written_.assign(bytes, 0);
  writer_.assign(bytes, 0);
  synchronizing_.assign(bytes, 0);
  last_read_.assign(bytes, 0);
  reads_.assign(size_t(bytes) * warps, 0);
}

void SharedChecker::begin_block(HappensBefore& order) {
  order_ = &order;
  if (order.nearly_out_of_time()) {
    order.restart();
    resize(bytes_, warps_);
  }
  order.begin_block(warps_);
  // Times of earlier blocks lie before the start of this one; only copies that never ended have to be
  // forgotten.
  for (Time& time : written_) {
    if (time == kInFlight) time = 0;
  }
}

std::string SharedChecker::thread(uint32_t byte) const {
  return format("thread %u (warp %u)", writer_[byte], writer_[byte] / kLanes);
}

Finding SharedChecker::read(const SharedAccess& a) {
  const Time start = order_->block_start(), settled = order_->settled(a.warp) - start;
  const Time* written = &written_[a.address];
  bool easy = true;
  for_width(a.bytes, [&](auto bytes) {
    for (uint32_t k = 0; k < bytes; ++k) easy &= written[k] - start < settled;
  });
  Finding finding;
  if (!easy) finding = slow_read(a);
  if (!a.synchronizing) remember_read(a);
  return finding;
}

void SharedChecker::remember_read(const SharedAccess& a) {
  const Time now = order_->now();
  const uint32_t lane = a.whole_warp ? kSeveralLanes : a.lane;
  const uint32_t mine = now << kLaneBits | lane, several = now << kLaneBits | kSeveralLanes;
  const uint32_t unsettled = order_->warp_settled(a.warp) << kLaneBits;
  Time* __restrict last_read = &last_read_[a.address];
  uint32_t* __restrict reads = &reads_[size_t(a.warp) * bytes_ + a.address];
  for_width(a.bytes, [=](auto bytes) {
    for (uint32_t k = 0; k < bytes; ++k) {
      // A lane that read before, in no order with this one, must not be forgotten.
      const bool another = reads[k] >= unsettled && reads[k] % (1u << kLaneBits) != lane;
      last_read[k] = now;
      reads[k] = another ? several : mine;
    }
  });
}

Finding SharedChecker::slow_read(const SharedAccess& a) const {
  for (uint32_t k = a.address; k < a.address + a.bytes; ++k) {
    const Time when = written_[k];
    const uint32_t writer_warp = writer_[k] / kLanes;
    const int writer_lane = writer_[k] % kLanes;
    if (when == kInFlight) {
      return {kind::unfinished_copy,
              format("reads shared byte 0x%x, the destination of a cp.async of %s that was not waited for", k,
                     thread(k).c_str())};
    }
    if (when < order_->block_start()) {
      return {kind::uninitialised_shared,
              format("reads shared byte 0x%x, which the block has not written", k)};
    }
    if (a.synchronizing && synchronizing_[k]) continue;
    const bool visible = a.whole_warp ? order_->visible_to_warp(writer_warp, when, a.warp)
                                      : order_->visible(writer_warp, writer_lane, when, a.warp, a.lane);
    if (visible) continue;
    if (writer_warp == a.warp) {
      return {kind::warp_race,
              format("reads shared byte 0x%x, written by %s of the same warp with no __syncwarp since", k,
                     thread(k).c_str())};
    }
    return {kind::shared_race,
            format("reads shared byte 0x%x, written by %s with no barrier since", k, thread(k).c_str())};
  }
  return {};
}

Finding SharedChecker::write(const SharedAccess& a, const uint8_t* before, const uint8_t* data) {
  Finding finding = check_write(a, before, data);
  remember_write(a, order_->now());
  return finding;
}

Finding SharedChecker::check_write(const SharedAccess& a, const uint8_t* before, const uint8_t* data) const {
  const Time settled = order_->settled(a.warp);
  const Time *written = &written_[a.address], *last_read = &last_read_[a.address];
  bool easy = true;
  for_width(a.bytes, [&](auto bytes) {
    for (uint32_t k = 0; k < bytes; ++k) easy &= (written[k] < settled) & (last_read[k] < settled);
  });
  return easy ? Finding{} : slow_write(a, before, data);
}

void SharedChecker::remember_write(const SharedAccess& a, Time when) {
  const uint16_t thread = static_cast<uint16_t>(a.warp * kLanes + a.lane);
  const uint8_t synchronizing = a.synchronizing;
  Time* __restrict written = &written_[a.address];
  uint16_t* __restrict writer = &writer_[a.address];
  uint8_t* __restrict how = &synchronizing_[a.address];
  for_width(a.bytes, [=](auto bytes) {
    for (uint32_t k = 0; k < bytes; ++k) {
      written[k] = when;
      writer[k] = thread;
      how[k] = synchronizing;
    }
  });
}

Finding SharedChecker::slow_write(const SharedAccess& a, const uint8_t* before, const uint8_t* data) const {
  for (uint32_t k = a.address; k < a.address + a.bytes; ++k) {
    const Time when = written_[k];
    const uint32_t writer_warp = writer_[k] / kLanes;
    if (when == kInFlight) {
      return {kind::shared_race,
              format("writes shared byte 0x%x, the destination of a cp.async of %s that was not waited for",
                     k, thread(k).c_str())};
    }
    const bool both_synchronizing = a.synchronizing && synchronizing_[k];
    if (when >= order_->block_start() && !both_synchronizing &&
        !order_->visible(writer_warp, writer_[k] % kLanes, when, a.warp, a.lane)) {
      if (writer_warp != a.warp) {
        return {kind::shared_race,
                format("writes shared byte 0x%x, written by %s with no barrier since", k, thread(k).c_str())};
      }
      if (!data || before[k - a.address] != data[k - a.address]) {
        return {kind::warp_race, format("writes shared byte 0x%x, to which %s of the same warp wrote another "
                                        "value with no __syncwarp since",
                                        k, thread(k).c_str())};
      }
    }
    if (Finding finding = reader_conflict(a, k); finding.kind) return finding;
  }
  return {};
}

Finding SharedChecker::reader_conflict(const SharedAccess& a, uint32_t byte) const {
  if (last_read_[byte] < order_->block_start()) return {};
  for (uint32_t warp = 0; warp < warps_; ++warp) {
    const uint32_t read = reads_[size_t(warp) * bytes_ + byte];
    const Time when = read >> kLaneBits;
    if (when < order_->block_start() || order_->visible_to_warp(warp, when, a.warp)) continue;
    if (warp != a.warp) {
      return {kind::shared_race,
              format("writes shared byte 0x%x, read by warp %u with no barrier since", byte, warp)};
    }
    const uint32_t lane = read & ((1u << kLaneBits) - 1);
    if (lane == kSeveralLanes) {
      return {
          kind::warp_race,
          format("writes shared byte 0x%x, read by other lanes of the warp with no __syncwarp since", byte)};
    }
    if (!order_->visible(warp, static_cast<int>(lane), when, a.warp, a.lane)) {
      return {kind::warp_race,
              format("writes shared byte 0x%x, read by lane %u of the same warp with no __syncwarp since",
                     byte, lane)};
    }
  }
  return {};
}

Finding SharedChecker::issue_copy(const SharedAccess& a) {
  Finding finding = check_write(a, nullptr, nullptr);
  remember_write(a, kInFlight);
  return finding;
}

void SharedChecker::finish_copy(const SharedAccess& a) {
  remember_write(a, order_->now());
}

}  // namespace pyconvx::emulator
