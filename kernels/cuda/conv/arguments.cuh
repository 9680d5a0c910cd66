// What a convolution kernel is given, by value. Shared by host and device: plain sizes, no torch, no CUDA
// types.
//
// Activations are N H W C, filters K R S C/groups, outputs N P Q K. Every size fits 31 bits, and so do N P Q,
// R S C/groups and a window's bytes: the plan refuses or splits what does not. Tensors themselves may be
// larger: kernels form 64-bit addresses of pixels and filters, and add 31-bit offsets within a window to
// them. fprop_plain.cuh alone needs none of the products to fit.
#pragma once

#include "../division.cuh"

namespace pyconvx {

// How the patches of input lie that blocks keep in shared memory: patch.cuh.
struct PatchArguments {
  Division by_band;         // columns of output in a band
  Division by_rows;         // P
  Division by_bands;        // bands of an image
  Division by_image_lines;  // H
  Division by_columns;      // the table's entries for a line: its columns, rounded up
  int columns, left;        // of a line, how many may lie in an image, from which one on
  int passes, busy_passes;  // of all threads through the table; those that may have something to copy
  int line_pitch, skip;     // bytes from line to line, and besides that from strip to strip
  int bytes;                // of a patch
  int tap_step;             // bytes from tap to tap in a line of the window: a row, or the only column
  int line_jump;            // more bytes from its last tap to the next one
  int taps_of_line;
  int blocks;    // channel blocks, of a split
  int splits;    // of the channels
  unsigned one;  // 1: x * one + pointer is one instruction, x + pointer would be two
};

struct Conv2dArguments {
  const void* input;
  const void* filter;
  void* output;
  const void* bias;      // one element per filter, or null
  const void* scale;     // one accumulator (f32, or f64 in f64) per filter, or null
  const void* shift;     // likewise
  const void* residual;  // laid out as the output, or null
  float* partial;        // sums of splits, or null

  int n, h, w, c;
  int k, p, q;
  int r, s;
  int stride_h, stride_w;
  int pad_top, pad_left;
  int dilation_h, dilation_w;
  int group_channels, group_filters;  // C / groups, K / groups
  int relu;
  int vector_output;  // may outputs, residuals and per-filter vectors be accessed by 16 bytes?

  int pixels;            // N P Q
  int reduction;         // R S C/groups
  unsigned row_step;     // bytes from one tap to the one below it, and
  unsigned column_step;  // to the one on its right

  Division by_image;         // P Q
  Division by_q;             // Q
  Division by_channels;      // C / groups
  Division by_s;             // S
  Division by_multiplier;    // K / groups
  Division by_filter_tiles;  // tiles of filters, in all groups
  Division by_group_tiles;   // tiles of filters in one group

  // For kernels whose blocks own rectangles of output pixels.
  int tiles;  // in all images
  Division by_tiles_of_image;
  Division by_tiles_of_row;  // from an image's left to its right edge

  PatchArguments patch;  // for kernels whose blocks keep one
};

struct TransposeArguments {
  const void* from;  // batches of rows x columns
  void* to;          // batches of columns x rows
  long long rows, columns;
  long long row_tiles, column_tiles, tiles;  // of 32 x 32; those of all batches
};

}  // namespace pyconvx
