// One kernel for each fault that the emulator's checker must report when BUG is 1, and must not when it is 0. What each
// is to be reported as stands in test_checker.py.
#define KERNEL(name) extern "C" __global__ void name(int* x)

__device__ __forceinline__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void copy16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void put_byte(char* to, int v) {
  asm volatile("st.shared.u8 [%0], %1;" ::"r"(at(to)), "r"(v) : "memory");
}
__device__ __forceinline__ int load_matrix(const void* row) {
  int v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(v) : "r"(at(row)) : "memory");
  return v;
}
__device__ __forceinline__ void barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void barrier() { asm volatile("bar.sync 0;" ::: "memory"); }

// --- races between warps

KERNEL(no_barrier_before_read) {
  __shared__ int s[128];
  int t = threadIdx.x;
  s[t] = x[t];
  if (!BUG) __syncthreads();
  x[t] = s[127 - t];
}

KERNEL(no_barrier_before_overwriting) {
  __shared__ int s[128];
  int t = threadIdx.x;
  s[t] = x[t];
  __syncthreads();
  int v = s[127 - t];
  if (!BUG) __syncthreads();
  s[t] = v + 1;
  __syncthreads();
  x[t] = s[t];
}

KERNEL(two_warps_write_one_place) {
  __shared__ int s[128];
  int t = threadIdx.x;
  s[BUG ? t % 32 : t] = x[t];
  __syncthreads();
  x[t] = s[t % 32];
}

// The bytes of one word may belong to different warps.
KERNEL(neighbouring_bytes) {
  __shared__ char s[136];
  int t = threadIdx.x;
  put_byte(s + t, 1);
  put_byte(s + t, 2);
  if (BUG && t % 32 == 31) put_byte(s + t + 1, 3);
}

KERNEL(barrier_of_the_wrong_half) {
  __shared__ int s[128];
  int t = threadIdx.x, half = t / 64;
  s[t] = x[t];
  barrier(1 + half, 64);
  x[t] = s[BUG ? 127 - t : half * 64 + 63 - t % 64];
}

KERNEL(copy_overwrites_what_is_read) {
  __shared__ __align__(16) int s[256];
  int t = threadIdx.x;
  copy16(s + 4 * t, x + 4 * t);
  commit();
  wait<0>();
  __syncthreads();
  int v = s[255 - t];
  if (!BUG) __syncthreads();
  copy16(s + 4 * t, x + 4 * t);
  commit();
  wait<0>();
  __syncthreads();
  x[t] = v + s[t];
}

KERNEL(copies_of_others_without_barrier) {
  __shared__ __align__(16) int s[256];
  int t = threadIdx.x;
  copy16(s + 4 * t, x + 4 * t);
  commit();
  wait<0>();
  if (!BUG) __syncthreads();
  x[t] = s[255 - 4 * t];
}

KERNEL(atomics_and_plain_writes) {
  __shared__ int s;
  int t = threadIdx.x;
  if (t == 0) s = 0;
  __syncthreads();
  if (BUG && t >= 32) s = 5;
  else atomicAdd(&s, x[t]);
  __syncthreads();
  x[t] = s;
}

// --- races between lanes of a warp

KERNEL(no_syncwarp_before_read) {
  __shared__ int s[32];
  int t = threadIdx.x;
  s[t] = x[t];
  if (!BUG) __syncwarp();
  x[t] = s[31 - t];
}

KERNEL(syncwarp_of_one_half) {
  __shared__ int s[32];
  int t = threadIdx.x;
  s[t] = x[t];
  __syncwarp(t < 16 ? 0xffffu : 0xffff0000u);
  x[t] = s[BUG ? 31 - t : t ^ 1];
}

KERNEL(no_syncwarp_before_overwriting) {
  __shared__ int s[32];
  int t = threadIdx.x;
  s[t] = x[t];
  __syncwarp();
  int v = s[t ^ 1];
  if (!BUG) __syncwarp();
  s[t] = v;
  __syncwarp();
  x[t] = s[t];
}

KERNEL(lanes_write_different_values) {
  __shared__ int s;
  int t = threadIdx.x;
  s = BUG ? t : 7;
  __syncwarp();
  x[t] = s;
}

KERNEL(ldmatrix_without_syncwarp) {
  __shared__ __align__(16) int s[128];
  int t = threadIdx.x;
  for (int k = 0; k < 4; ++k) s[4 * t + k] = x[t];
  if (!BUG) __syncwarp();
  x[t] = load_matrix(s + 4 * t);
}

// --- data that is not there yet

KERNEL(shared_never_written) {
  __shared__ int s[65];
  int t = threadIdx.x;
  s[t] = x[t];
  if (!BUG && t == 0) s[64] = 0;
  __syncthreads();
  x[t] = s[t + 1];
}

KERNEL(local_never_written) {
  volatile int a[8];
  int t = threadIdx.x;
  for (int k = BUG; k < 8; ++k) a[k] = k;
  x[t] = a[t % 8];
}

KERNEL(copy_read_before_wait) {
  __shared__ __align__(16) int s[256];
  int t = threadIdx.x;
  copy16(s + 4 * t, x + 4 * t);
  commit();
  if (!BUG) wait<0>();
  __syncthreads();
  x[t] = s[4 * t];
  if (BUG) wait<0>();
}

KERNEL(wait_allows_one_group_too_many) {
  __shared__ __align__(16) int s[512];
  int t = threadIdx.x;
  copy16(s + 4 * t, x + 4 * t);
  commit();
  copy16(s + 256 + 4 * t, x + 4 * t);
  commit();
  wait<BUG ? 2 : 1>();
  __syncthreads();
  int v = s[t];
  wait<0>();
  __syncthreads();
  x[t] = v + s[256 + t];
}

KERNEL(copy_never_waited_for) {
  __shared__ __align__(16) int s[256];
  int t = threadIdx.x;
  copy16(s + 4 * t, x + 4 * t);
  commit();
  if (!BUG) wait<0>();
}

KERNEL(copy_of_more_than_its_size) {
  __shared__ __align__(16) int s[128];
  int t = threadIdx.x;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at(s + 4 * t)), "l"(x + 4 * t), "r"(BUG ? 20 : 12)
               : "memory");
  commit();
  wait<0>();
  x[t] = s[4 * t + 3];
}

// --- addresses

KERNEL(past_the_end) {
  int i = blockIdx.x * 64 + threadIdx.x;
  if (i < 1024 - 1 + BUG) x[i + 1] = 3;
}

KERNEL(before_the_start) {
  int t = threadIdx.x, v = 0;
  if (BUG || t > 0) v = x[t - 1];
  __syncthreads();
  x[t] = v;
}

KERNEL(past_shared_memory) {
  __shared__ int s[64];
  int t = threadIdx.x;
  ((volatile int*)s)[t + BUG] = x[t];
  __syncthreads();
  x[t] = s[t];
}

KERNEL(misaligned_vector) {
  int t = threadIdx.x;
  asm volatile("st.global.v2.b32 [%0], {%1, %1};" ::"l"(x + 2 * t + BUG), "r"(t) : "memory");
}

KERNEL(misaligned_ldmatrix) {
  __shared__ __align__(16) int s[140];
  int t = threadIdx.x;
  for (int k = t; k < 140; k += 32) s[k] = x[k];
  __syncthreads();
  x[t] = load_matrix(s + 4 * t + BUG);
}

// --- barriers and collectives

KERNEL(barrier_in_one_branch) {
  int t = threadIdx.x;
  if (BUG ? t % 32 < 7 : t < 1000) barrier();
  x[t] = t;
}

KERNEL(another_barrier_in_each_branch) {
  int t = threadIdx.x;
  if (BUG ? t % 2 : t < 32) {
    barrier();
    x[t] = t;
  } else {
    asm volatile("bar.sync 0; // the other" ::: "memory");
    x[t] = 2;
  }
}

KERNEL(part_of_a_warp_returns_early) {
  int t = threadIdx.x;
  if (t >= (BUG ? 40 : 32)) return;
  __syncthreads();
  x[t] = t;
}

KERNEL(warps_at_different_barriers) {
  int t = threadIdx.x;
  barrier(BUG ? t / 32 : 0, 64);
  x[t] = t;
}

KERNEL(barrier_expects_too_many) {
  barrier(0, BUG ? 96 : 64);
  x[threadIdx.x] = 1;
}

KERNEL(count_is_no_multiple_of_the_warp) {
  barrier(0, BUG ? 60 : 64);
  x[threadIdx.x] = 1;
}

KERNEL(shuffle_names_lanes_that_never_come) {
  int t = threadIdx.x;
  if (t < 16) x[t] = __shfl_xor_sync(BUG ? ~0u : 0xffffu, t, 1);
  else __nanosleep(1);
}

KERNEL(shuffle_from_a_lane_that_is_not_there) {
  int t = threadIdx.x;
  if (t < 16) x[t] = __shfl_xor_sync(0xffffu, t, BUG ? 16 : 8);
}

KERNEL(lane_outside_its_own_mask) {
  int t = threadIdx.x, v;
  asm volatile("shfl.sync.bfly.b32 %0, %1, 1, 31, %2;" : "=r"(v) : "r"(t), "r"(BUG ? 0xfffffffe : ~0u));
  x[t] = v;
}

KERNEL(ldmatrix_after_lanes_have_left) {
  __shared__ __align__(16) int s[128];
  int t = threadIdx.x;
  for (int k = t; k < 128; k += 32) s[k] = x[k];
  __syncthreads();
  if (BUG && t > 29) return;
  x[t] = load_matrix(s + 4 * t);
}

// --- blocks, and kernels that do not end well

KERNEL(two_blocks_write_one_address) {
  int i = blockIdx.x * (64 - BUG) + threadIdx.x;
  x[i] = i;
}

KERNEL(block_reads_what_another_wrote) {
  int i = blockIdx.x * 64 + threadIdx.x;
  x[i] = i;
  __syncthreads();
  x[i + 512] = x[BUG ? threadIdx.x : i];
}

KERNEL(endless_loop) {
  volatile int* v = x;
  while (v[0] != (BUG ? -1 : 0)) {
  }
}

KERNEL(trap) {
  if (x[threadIdx.x] >= (BUG ? 20 : 2000)) __trap();
}
