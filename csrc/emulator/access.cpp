#include "access.h"

#include <algorithm>

#include "assembler.h"
#include "block.h"

namespace pyconvx::emulator {

namespace {

const char* verb(const Access& a) {
  return a.kind == Access::read    ? "reads"
         : a.kind == Access::write ? "writes"
         : a.kind == Access::copy  ? "copies to"
                                   : "updates";
}

bool in_bounds(uint64_t at, uint64_t bytes, uint64_t size) {
  return at <= size && bytes <= size - at;
}

class Resolver {
public:
  Resolver(Warp& warp, const Instruction& instruction, Access& access)
      : warp_(warp), block_(*warp.block), i_(instruction), access_(access) {}

  uint8_t* lane(int lane, Space space) {
    const uint64_t at =
        space == Space::shared ? static_cast<uint32_t>(access_.address[lane]) : access_.address[lane];
    if (at & (access_.align - 1)) {
      block_.report(kind::misaligned, warp_, lane, i_, [&] {
        return format("%s %u bytes at 0x%llx, which is no multiple of %u", verb(access_), access_.bytes,
                      static_cast<unsigned long long>(at), access_.align);
      });
      return nullptr;
    }
    switch (space) {
    case Space::shared:
      return shared(lane, at);
    case Space::local:
      return local(lane, at & ~kSpaceTagMask);
    case Space::param:
      return param(lane, at & ~kSpaceTagMask);
    default:
      return global(lane, at);
    }
  }

private:
  uint8_t* outside(int lane, const char* what, uint64_t at, uint64_t size) {
    block_.report(kind::out_of_bounds, warp_, lane, i_, [&] {
      return format("%s %u bytes at offset %lld of %s, which has %llu bytes", verb(access_), access_.bytes,
                    static_cast<long long>(at), what, static_cast<unsigned long long>(size));
    });
    return nullptr;
  }

  uint8_t* shared(int lane, uint64_t at) {
    if (!in_bounds(at, access_.bytes, block_.shared.size()))
      return outside(lane, "shared memory", at, block_.shared.size());
    uint8_t* host = &block_.shared[at];
    if (!block_.checking) return host;
    const SharedAccess a{warp_.index,       lane, static_cast<uint32_t>(at), access_.bytes, i_.synchronizing,
                         access_.whole_warp};
    Finding finding;
    switch (access_.kind) {
    case Access::read:
      finding = block_.shared_checker.read(a);
      break;
    case Access::copy:
      finding = block_.shared_checker.issue_copy(a);
      break;
    case Access::read_write:
      finding = block_.shared_checker.read(a);
      [[fallthrough]];
    case Access::write: {
      Finding wrong = block_.shared_checker.write(a, host, access_.data ? access_.data[lane] : nullptr);
      if (!finding.kind) finding = std::move(wrong);
    }
    }
    if (finding.kind) block_.report(finding.kind, warp_, lane, i_, [&] { return finding.message; });
    return host;
  }

  uint8_t* local(int lane, uint64_t at) {
    const uint64_t size = block_.program.local_bytes;
    if (!in_bounds(at, access_.bytes, size)) return outside(lane, "the thread's local memory", at, size);
    uint8_t* written = &warp_.local_written[lane * size + at];
    if (access_.kind != Access::read) {
      std::fill_n(written, access_.bytes, uint8_t(1));
    } else if (block_.checking && std::find(written, written + access_.bytes, 0) != written + access_.bytes) {
      block_.report(kind::uninitialised_local, warp_, lane, i_, [&] {
        return format("reads %u bytes at offset %llu of the thread's local memory, not all of them written",
                      access_.bytes, static_cast<unsigned long long>(at));
      });
    }
    return &warp_.local[lane * size + at];
  }

  uint8_t* param(int lane, uint64_t at) {
    if (at >= kThreadParam) {
      const uint64_t size = block_.program.thread_param_bytes;
      at -= kThreadParam;
      if (!in_bounds(at, access_.bytes, size)) return outside(lane, "the parameters of a call", at, size);
      return &warp_.params[lane * size + at];
    }
    std::vector<uint8_t>& parameters = block_.launch.parameters;
    if (!in_bounds(at, access_.bytes, parameters.size()))
      return outside(lane, "the kernel's parameters", at, parameters.size());
    if (access_.kind != Access::read) {
      block_.report(kind::read_only, warp_, lane, i_,
                    [&] { return std::string("writes a kernel parameter"); });
      return nullptr;
    }
    return &parameters[at];
  }

  uint8_t* global(int lane, uint64_t address) {
    if (!allocation_ || address >> kWindowBits != window_) {
      allocation_ = block_.launch.memory.find(address);
      window_ = address >> kWindowBits;
    }
    if (!allocation_) {
      block_.report(kind::out_of_bounds, warp_, lane, i_, [&] {
        return format("%s %u bytes at 0x%llx, where nothing is allocated", verb(access_), access_.bytes,
                      static_cast<unsigned long long>(address));
      });
      return nullptr;
    }
    Allocation& a = *allocation_;
    const uint64_t at = GlobalMemory::offset(address);
    if (!in_bounds(at, access_.bytes, a.bytes)) return outside(lane, a.name.c_str(), at, a.bytes);
    if (access_.kind != Access::read && a.read_only) {
      block_.report(kind::read_only, warp_, lane, i_,
                    [&] { return "writes " + a.name + ", which is read-only"; });
      return nullptr;
    }
    if (a.written) check_written(a, at, lane);
    if (block_.checking && !i_.synchronizing) check_blocks(a, at, lane);
    return a.host + at;
  }

  void check_written(Allocation& a, uint64_t at, int lane) {
    uint8_t* written = a.written + at;
    if (access_.kind != Access::write &&
        std::find(written, written + access_.bytes, 0) != written + access_.bytes) {
      block_.report(kind::uninitialised_global, warp_, lane, i_, [&] {
        return format("%s %u bytes at offset %llu of %s, not all of them written", verb(access_),
                      access_.bytes, static_cast<unsigned long long>(at), a.name.c_str());
      });
    }
    if (access_.kind != Access::read) std::fill_n(written, access_.bytes, uint8_t(1));
  }

  // A block that reads before the other one writes is not seen here; it is when the blocks run in the other
  // order.
  void check_blocks(Allocation& a, uint64_t at, int lane) {
    const bool writes = access_.kind != Access::read;
    Allocation::Writers* writers =
        writes ? &a.make_writers() : a.writers_ready.load(std::memory_order_acquire);
    if (!writers) return;
    const uint32_t me = static_cast<uint32_t>(block_.index()) + 1;
    for (uint32_t k = 0; k < access_.bytes; ++k) {
      std::atomic<uint32_t>& writer = (*writers)[at + k];
      const uint32_t other = writer.load(std::memory_order_relaxed);
      if (writes) writer.store(me, std::memory_order_relaxed);
      if (!other || other == me) continue;
      block_.report(kind::block_race, warp_, lane, i_, [&] {
        return format("%s byte %llu of %s, which block %u (linear) wrote", verb(access_),
                      static_cast<unsigned long long>(at + k), a.name.c_str(), other - 1);
      });
      if (!writes) return;
    }
  }

  Warp& warp_;
  Block& block_;
  const Instruction& i_;
  Access& access_;
  Allocation* allocation_ = nullptr;  // the last lane's, most often the next one's too
  uint64_t window_ = 0;
};

Space space_of(uint64_t address) {
  switch (address & kSpaceTagMask) {
  case kSharedTag:
    return Space::shared;
  case kLocalTag:
    return Space::local;
  case kParamTag:
    return Space::param;
  default:
    return Space::global;
  }
}

}  // namespace

void compute_addresses(Warp& warp, const Instruction& i, LaneMask active, uint64_t* address) {
  if (!i.address) {
    for_lanes(active, [&](int lane) { address[lane] = static_cast<uint64_t>(i.offset); });
  } else if (i.address_size == 8) {
    const uint64_t* base = warp.lanes<uint64_t>(i.address);
    for_lanes(active, [&](int lane) { address[lane] = base[lane] + static_cast<uint64_t>(i.offset); });
  } else {
    const uint32_t* base = warp.lanes<uint32_t>(i.address);
    for_lanes(active, [&](int lane) { address[lane] = base[lane] + static_cast<uint64_t>(i.offset); });
  }
}

void resolve(Warp& warp, const Instruction& i, LaneMask active, Access& access) {
  if (!active) return;
  if (warp.block->checking && i.address) require_defined(warp, i, active, i.address, "the address");
  Space first = access.space == Space::generic ? space_of(access.address[first_lane(active)]) : access.space;
  if (access.counted) {
    SiteCounts& site = warp.block->counts[warp.block->number(i)];
    if (first == Space::shared)
      count_shared(site, active, access.address, access.bytes);
    else if (first == Space::global)
      count_global(site, active, access.address, access.bytes);
  }
  Resolver resolver(warp, i, access);
  for_lanes(active, [&](int lane) {
    const Space space = access.space == Space::generic ? space_of(access.address[lane]) : first;
    access.host[lane] = resolver.lane(lane, space);
    if (access.data && access.host[lane]) std::memcpy(access.host[lane], access.data[lane], access.bytes);
  });
}

void require_defined(Warp& warp, const Instruction& i, LaneMask active, uint32_t place, const char* role) {
  const LaneMask undefined = active & ~warp.defined(place);
  if (!undefined) return;
  warp.block->report(kind::uninitialised_register, warp, first_lane(undefined), i,
                     [&] { return format("%s comes from a register that nothing was written to", role); });
}

void require_sources_defined(Warp& warp, const Instruction& i, LaneMask active) {
  if (!warp.block->checking) return;
  for (int k = 0; k < i.sources; ++k) require_defined(warp, i, active, i.source[k], "an operand");
}

}  // namespace pyconvx::emulator
