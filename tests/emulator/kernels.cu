// Three kernels that the emulator's tests check for right numbers and its benchmark for speed. Sizes are multiples of the
// tiles. FAULT plants one fault, to see that it does not go unnoticed; 0 is a right kernel.
#ifndef FAULT
#define FAULT 0
#endif

extern "C" __global__ void saxpy(int n, float a, const float* x, float* y) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = a * x[i] + y[i];
}

// C = A B, all n x n and row-major, by 64 x 64 tiles in shared memory; 256 threads, 4 x 4 results each.
extern "C" __global__ void sgemm(int n, const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c) {
  constexpr int tile = 64, depth = 16;
  __shared__ float as[depth][tile + 4], bs[depth][tile + 4];
  const int t = threadIdx.x, row = t / 16 * 4, column = t % 16 * 4;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < n; k0 += depth) {
    for (int e = t; e < tile * depth; e += 256) {
      as[e % depth][e / depth] = a[(blockIdx.y * tile + e / depth) * n + k0 + e % depth];
      bs[e / tile][e % tile] = b[(k0 + e / tile) * n + blockIdx.x * tile + e % tile];
    }
    if (FAULT != 1) __syncthreads();
    for (int k = 0; k < depth; ++k) {
      float av[4], bv[4];
      for (int i = 0; i < 4; ++i) av[i] = as[k][row + i], bv[i] = bs[k][column + i];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sum[i][j] += av[i] * bv[j];
    }
    if (FAULT != 2) __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) c[(blockIdx.y * tile + row + i) * n + blockIdx.x * tile + column + j] = sum[i][j];
}

// C = A B' with halves and f32 sums, by mma.sync: A is m x k, B is n x k, C is m x n, tiles of 64 x 64 x 32, three stages
// of cp.async, four warps of 32 x 32. A row of 32 halves takes 80 bytes, an odd multiple of 16: no bank conflicts.
constexpr int kTile = 64, kDepth = 32, kPitch = 40, kStages = 3;

__device__ __forceinline__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void load_tile(unsigned short* to, const unsigned short* from, int k) {
  for (int e = threadIdx.x; e < kTile * kDepth / 8 - (FAULT == 3 ? 128 : 0); e += 128) {
    const int row = e / (kDepth / 8), column = e % (kDepth / 8) * 8;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + row * kPitch + column)),
                 "l"(from + row * k + column)
                 : "memory");
  }
}

__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const unsigned short* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

extern "C" __global__ void __launch_bounds__(128) hgemm(int n, int k, const unsigned short* a, const unsigned short* b, float* c) {
  __shared__ __align__(16) unsigned short as[kStages][kTile * kPitch], bs[kStages][kTile * kPitch];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;
  a += blockIdx.y * kTile * k;
  b += blockIdx.x * kTile * k;
  float sum[2][4][4] = {};
  const int steps = k / kDepth;
  auto load = [&](int step) {
    if (step < steps) {
      load_tile(as[step % kStages], a + step * kDepth, k);
      load_tile(bs[step % kStages], b + step * kDepth, k);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  load(0);
  load(1);
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(FAULT == 4 ? kStages - 1 : kStages - 2) : "memory");
    if (FAULT != 5) __syncthreads();
    load(step + kStages - 1);
    for (int kk = 0; kk < kDepth; kk += 16) {
      unsigned af[2][4], bf[2][4];
      for (int i = 0; i < 2; ++i) {
        load_matrices(af[i], &as[step % kStages][(warp_m + i * 16 + lane % 16) * kPitch + kk + lane / 16 * 8]);
        load_matrices(bf[i], &bs[step % kStages][(warp_n + i * 16 + lane / 16 * 8 + lane % 8) * kPitch + kk + lane / 8 % 2 * 8]);
      }
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j) {
          float(&s)[4] = sum[i][j];
          asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                       : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                       : "r"(af[i][0]), "r"(af[i][FAULT == 6 ? 2 : 1]), "r"(af[i][FAULT == 6 ? 1 : 2]), "r"(af[i][3]),
                         "r"(bf[j / 2][j % 2 * 2]), "r"(bf[j / 2][j % 2 * 2 + 1]));
        }
    }
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e) {
        const int row = blockIdx.y * kTile + warp_m + i * 16 + lane / 4 + e / 2 * 8;
        c[row * n + blockIdx.x * kTile + warp_n + j * 8 + lane % 4 * 2 + e % 2] = sum[i][j][e];
      }
}
