// The Python module pyconvx._C: problems, and the kernels called with addresses of dense tensors.
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cuda/bind_cuda.h"
#include "plan/bind_plan.h"
#include "problem.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <sstream>
#include <stdexcept>

namespace py = pybind11;
using namespace py::literals;

namespace pyconvx {
namespace {

using Pair = std::array<int64_t, 2>;     // vertical, horizontal
using Padding = std::array<int64_t, 4>;  // top, bottom, left, right
using Address = std::uintptr_t;

// ---------------------------------------------------------------------------------------------------------
// Checks at the border: what passes here may not crash.

template <class Problem>
void require_valid(const Problem& problem) {
  if (std::string refusal = problem.refusal(); !refusal.empty()) throw std::invalid_argument(refusal);
}

template <class Pointer = void>
Pointer* pointer(const char* op, const char* argument, Address address) {
  if (!address)
    throw std::invalid_argument(
        std::string(op) + ": `" + argument +
        "` is a null address; pass the data_ptr() of a tensor that has storage (meta and fake "
        "tensors have none)");
  return reinterpret_cast<Pointer*>(address);
}

void require_indices(const Pool2dProblem& problem, const char* op) {
  if (problem.index == IndexType::none)
    throw std::invalid_argument(
        std::string(op) +
        ": the winners' indices are needed, but the problem's index is none; make the problem "
        "with index=uint8, int32 or int64");
}

int64_t index_at(IndexType type, const void* indices, int64_t place) {
  switch (type) {
  case IndexType::u8:
    return static_cast<const uint8_t*>(indices)[place];
  case IndexType::i32:
    return static_cast<const int32_t*>(indices)[place];
  default:
    return static_cast<const int64_t*>(indices)[place];
  }
}

std::string bad_index(const Unpool2dProblem& x, const char* op, int64_t index, int64_t n, int64_t c,
                      int64_t p, int64_t q) {
  std::ostringstream sentence;
  sentence << op << ": index " << index << " at [n, c, p, q] = [" << n << ", " << c << ", " << p << ", " << q
           << "] lies outside the " << x.h << " x " << x.w << " output plane (";
  if (x.index == IndexType::i64)
    sentence << "valid: 0 to " << x.h * x.w - 1;
  else
    sentence << "it is an offset in a window of " << x.r << " x " << x.s << " at row "
             << p * x.stride_h - x.pad_top << ", column " << q * x.stride_w - x.pad_left;
  sentence << "); pass the output_size of the pooled input, or the indices that max_pool2d returned for it";
  return sentence.str();
}

// Refuses the index at a place in memory; -1 is no place.
void refuse_index(const Unpool2dProblem& x, const char* op, const void* indices, int64_t place) {
  if (place < 0) return;
  const bool nhwc = x.layout == Layout::nhwc;
  const int64_t window = nhwc ? place / x.c : place, q = window % x.q, p = window / x.q % x.p;
  const int64_t image = window / x.q / x.p, c = nhwc ? place % x.c : image % x.c,
                n = nhwc ? image : image / x.c;
  throw std::invalid_argument(bad_index(x, op, index_at(x.index, indices, place), n, c, p, q));
}

// ---------------------------------------------------------------------------------------------------------
// Entries. The problem says how large the tensors are; their addresses are taken on trust.

void max_pool2d(const Pool2dProblem& problem, Address input, Address output, Address indices) {
  require_valid(problem);
  if (problem.n == 0) return;
  const void* from = pointer<const void>("max_pool2d", "input", input);
  void* to = pointer("max_pool2d", "output", output);
  void* winners = problem.index == IndexType::none ? nullptr : pointer("max_pool2d", "indices", indices);
  const py::gil_scoped_release released;
  cpu::kernels().max_pool2d(problem, from, to, winners);
}

void max_pool2d_backward(const Pool2dProblem& problem, Address grad_output, Address indices,
                         Address grad_input) {
  constexpr const char* op = "max_pool2d_backward";
  require_valid(problem);
  require_indices(problem, op);
  if (problem.n == 0) return;
  const void* from = pointer<const void>(op, "grad_output", grad_output);
  const void* winners = pointer<const void>(op, "indices", indices);
  void* to = pointer(op, "grad_input", grad_input);
  const py::gil_scoped_release released;
  cpu::kernels().max_pool2d_backward(problem, from, winners, to);
}

void max_pool2d_gather(const Pool2dProblem& problem, Address input, Address indices, Address output) {
  constexpr const char* op = "max_pool2d_gather";
  require_valid(problem);
  require_indices(problem, op);
  if (problem.n == 0) return;
  const void* from = pointer<const void>(op, "input", input);
  const void* winners = pointer<const void>(op, "indices", indices);
  void* to = pointer(op, "output", output);
  const py::gil_scoped_release released;
  cpu::kernels().max_pool2d_gather(problem, from, winners, to);
}

void max_unpool2d(const Unpool2dProblem& problem, Address input, Address indices, Address output) {
  constexpr const char* op = "max_unpool2d";
  require_valid(problem);
  if (problem.n == 0) return;
  const void* from = pointer<const void>(op, "input", input);
  const void* places = pointer<const void>(op, "indices", indices);
  void* to = pointer(op, "output", output);
  const py::gil_scoped_release released;
  refuse_index(problem, op, places, cpu::kernels().first_bad_index(problem, places));
  cpu::kernels().max_unpool2d(problem, from, places, to);
}

void max_unpool2d_backward(const Unpool2dProblem& problem, Address grad_output, Address indices,
                           Address grad_input) {
  constexpr const char* op = "max_unpool2d_backward";
  require_valid(problem);
  if (problem.n == 0) return;
  const void* from = pointer<const void>(op, "grad_output", grad_output);
  const void* places = pointer<const void>(op, "indices", indices);
  void* to = pointer(op, "grad_input", grad_input);
  const py::gil_scoped_release released;
  refuse_index(problem, op, places, cpu::kernels().max_unpool2d_backward(problem, from, places, to));
}

void require_count(const char* op, int64_t count) {
  if (count < 0)
    throw std::invalid_argument(std::string(op) + ": count must not be negative, got " +
                                std::to_string(count) + "; pass the tensor's numel()");
}

void residual_add(int64_t count, DType dtype, Activation activation, Address x, Address residual,
                  Address output) {
  require_count("residual_add", count);
  if (count == 0) return;
  const void* from = pointer<const void>("residual_add", "x", x);
  void* to = pointer("residual_add", "output", output);
  const py::gil_scoped_release released;
  cpu::kernels().residual_add(count, dtype, activation, from, reinterpret_cast<const void*>(residual), to);
}

void relu_backward(int64_t count, DType dtype, Address grad_output, Address output, Address grad_input) {
  require_count("relu_backward", count);
  if (count == 0) return;
  const void* from = pointer<const void>("relu_backward", "grad_output", grad_output);
  const void* y = pointer<const void>("relu_backward", "output", output);
  void* to = pointer("relu_backward", "grad_input", grad_input);
  const py::gil_scoped_release released;
  cpu::kernels().relu_backward(count, dtype, from, y, to);
}

void residual_add_mask(int64_t count, DType dtype, Address x, Address residual, Address output,
                       Address mask) {
  constexpr const char* op = "residual_add_mask";
  require_count(op, count);
  if (count == 0) return;
  const void* from = pointer<const void>(op, "x", x);
  const void* other = pointer<const void>(op, "residual", residual);
  void* to = pointer(op, "output", output);
  uint8_t* bits = pointer<uint8_t>(op, "mask", mask);
  const py::gil_scoped_release released;
  cpu::kernels().residual_add_mask(count, dtype, from, other, to, bits);
}

void relu_backward_mask(int64_t count, DType dtype, Address grad_output, Address mask, Address grad_input) {
  constexpr const char* op = "relu_backward_mask";
  require_count(op, count);
  if (count == 0) return;
  const void* from = pointer<const void>(op, "grad_output", grad_output);
  const uint8_t* bits = pointer<const uint8_t>(op, "mask", mask);
  void* to = pointer(op, "grad_input", grad_input);
  const py::gil_scoped_release released;
  cpu::kernels().relu_backward_mask(count, dtype, from, bits, to);
}

// ---------------------------------------------------------------------------------------------------------
// Binding.

template <class Enum>
void bind_enum(py::module_& m, const char* type_name, const char* doc, std::initializer_list<Enum> values) {
  py::enum_<Enum> type(m, type_name, doc);
  for (Enum value : values) type.value(name(value), value);
}

// What all problems have: the geometry of a window, and value semantics.
template <class Problem>
void bind_common(py::class_<Problem>& type) {
  type.def_property_readonly("stride", [](const Problem& x) { return Pair{x.stride_h, x.stride_w}; })
      .def_property_readonly(
          "padding",
          [](const Problem& x) { return Padding{x.pad_top, x.pad_bottom, x.pad_left, x.pad_right}; })
      .def_property_readonly("dilation", [](const Problem& x) { return Pair{x.dilation_h, x.dilation_w}; })
      .def_readonly("n", &Problem::n)
      .def_readonly("c", &Problem::c)
      .def_readonly("h", &Problem::h)
      .def_readonly("w", &Problem::w)
      .def_readonly("r", &Problem::r)
      .def_readonly("s", &Problem::s)
      .def_readonly("stride_h", &Problem::stride_h)
      .def_readonly("stride_w", &Problem::stride_w)
      .def_readonly("pad_top", &Problem::pad_top)
      .def_readonly("pad_bottom", &Problem::pad_bottom)
      .def_readonly("pad_left", &Problem::pad_left)
      .def_readonly("pad_right", &Problem::pad_right)
      .def_readonly("dilation_h", &Problem::dilation_h)
      .def_readonly("dilation_w", &Problem::dilation_w)
      .def_readonly("dtype", &Problem::dtype)
      .def_readonly("layout", &Problem::layout)
      .def_property_readonly("channels_last", [](const Problem& x) { return x.layout == Layout::nhwc; })
      .def("refusal", &Problem::refusal,
           "'' if the problem can be computed; otherwise one sentence with what was given, what was expected "
           "and what "
           "to do.")
      .def("__str__", &Problem::str)
      .def("__repr__", [](const Problem& x) { return "<" + x.str() + ">"; })
      .def(
          "__eq__", [](const Problem& a, const Problem& b) { return same(a, b); }, py::is_operator())
      .def("__hash__", [](const Problem& x) { return hash(x); });
}

template <class Problem>
int64_t valid_p(const Problem& problem) {
  require_valid(problem);
  return problem.p();
}

template <class Problem>
int64_t valid_q(const Problem& problem) {
  require_valid(problem);
  return problem.q();
}

void bind_conv2d_problem(py::module_& m) {
  py::class_<Conv2dProblem> type(
      m, "Conv2dProblem",
      "A convolution of N x C x H x W inputs with K filters of C/groups x R x S, in one of its three "
      "passes.\n\n"
      "stride and dilation are (vertical, horizontal), padding is (top, bottom, left, right); pass_ is the "
      "pass.\n"
      "The sizes are those of fprop in every pass: input N x C x H x W, output N x K x P x Q.");
  type.def(
      py::init([](int64_t n, int64_t c, int64_t h, int64_t w, int64_t k, int64_t r, int64_t s, Pair stride,
                  Padding padding, Pair dilation, int64_t groups, DType dtype, Layout layout, Pass pass,
                  bool bias, bool residual, Activation activation, bool masked) {
        return Conv2dProblem{n,          c,           h,           w,          k,          r,
                             s,          stride[0],   stride[1],   padding[0], padding[1], padding[2],
                             padding[3], dilation[0], dilation[1], groups,     dtype,      layout,
                             pass,       bias,        residual,    activation, masked};
      }),
      py::kw_only(), "n"_a, "c"_a, "h"_a, "w"_a, "k"_a, "r"_a, "s"_a, "stride"_a = Pair{1, 1},
      "padding"_a = Padding{}, "dilation"_a = Pair{1, 1}, "groups"_a = 1, "dtype"_a = DType::f32,
      "layout"_a = Layout::nchw, "pass_"_a = Pass::fprop, "bias"_a = false, "residual"_a = false,
      "activation"_a = Activation::none, "masked"_a = false);
  bind_common(type);
  type.def_readonly("k", &Conv2dProblem::k)
      .def_readonly("groups", &Conv2dProblem::groups)
      .def_readonly("pass_", &Conv2dProblem::pass)
      .def_readonly("bias", &Conv2dProblem::bias)
      .def_readonly("residual", &Conv2dProblem::residual)
      .def_readonly("activation", &Conv2dProblem::activation)
      .def_readonly("masked", &Conv2dProblem::masked,
                    "Does the gradient count only where the output of a ReLU is not <= 0?")
      .def_property_readonly("p", valid_p<Conv2dProblem>, "Output rows.")
      .def_property_readonly("q", valid_q<Conv2dProblem>, "Output columns.")
      .def_property_readonly(
          "flops",
          [](const Conv2dProblem& x) {
            require_valid(x);
            return x.flops();
          },
          "2 N K P Q R S C / groups, the same for all passes.");
}

void bind_pool2d_problem(py::module_& m) {
  py::class_<Pool2dProblem> type(
      m, "Pool2dProblem",
      "A max pooling of N x C x H x W inputs by windows of R x S into N x C x P x Q outputs.\n\n"
      "stride and dilation are (vertical, horizontal), padding is (top, bottom, left, right). index says how "
      "winners\n"
      "are remembered: int64, the flat position h * W + w in the plane; uint8 or int32, the offset r * S + s "
      "in the\n"
      "window; none.");
  type.def(py::init([](int64_t n, int64_t c, int64_t h, int64_t w, int64_t r, int64_t s, Pair stride,
                       Padding padding, Pair dilation, bool ceil_mode, DType dtype, Layout layout,
                       IndexType index, Activation activation) {
             return Pool2dProblem{n,          c,          h,           w,           r,
                                  s,          stride[0],  stride[1],   padding[0],  padding[1],
                                  padding[2], padding[3], dilation[0], dilation[1], ceil_mode,
                                  dtype,      layout,     index,       activation};
           }),
           py::kw_only(), "n"_a, "c"_a, "h"_a, "w"_a, "r"_a, "s"_a, "stride"_a = Pair{1, 1},
           "padding"_a = Padding{}, "dilation"_a = Pair{1, 1}, "ceil_mode"_a = false, "dtype"_a = DType::f32,
           "layout"_a = Layout::nchw, "index"_a = IndexType::i64, "activation"_a = Activation::none);
  bind_common(type);
  type.def_readonly("ceil_mode", &Pool2dProblem::ceil_mode)
      .def_readonly("index", &Pool2dProblem::index)
      .def_readonly("activation", &Pool2dProblem::activation, "Of the input, before it is pooled.")
      .def_property_readonly("p", valid_p<Pool2dProblem>, "Output rows.")
      .def_property_readonly("q", valid_q<Pool2dProblem>, "Output columns.")
      .def_property_readonly("overlapping", &Pool2dProblem::overlapping,
                             "May one input belong to two windows?");
}

void bind_unpool2d_problem(py::module_& m) {
  py::class_<Unpool2dProblem> type(m, "Unpool2dProblem",
                                   "The unpooling of N x C x P x Q inputs into N x C x H x W outputs.\n\n"
                                   "The window (r, s, stride, padding, dilation) is the pooling's; offsets "
                                   "(uint8, int32) are relative to it, flat\n"
                                   "indices (int64) do not depend on it.");
  type.def(
      py::init([](int64_t n, int64_t c, int64_t p, int64_t q, int64_t h, int64_t w, int64_t r, int64_t s,
                  Pair stride, Padding padding, Pair dilation, DType dtype, Layout layout, IndexType index) {
        return Unpool2dProblem{n,           c,          p,          q,          h,
                               w,           r,          s,          stride[0],  stride[1],
                               padding[0],  padding[1], padding[2], padding[3], dilation[0],
                               dilation[1], dtype,      layout,     index};
      }),
      py::kw_only(), "n"_a, "c"_a, "p"_a, "q"_a, "h"_a, "w"_a, "r"_a, "s"_a, "stride"_a = Pair{1, 1},
      "padding"_a = Padding{}, "dilation"_a = Pair{1, 1}, "dtype"_a = DType::f32, "layout"_a = Layout::nchw,
      "index"_a = IndexType::i64);
  bind_common(type);
  type.def_readonly("p", &Unpool2dProblem::p)
      .def_readonly("q", &Unpool2dProblem::q)
      .def_readonly("index", &Unpool2dProblem::index)
      .def_property_readonly("overlapping", &Unpool2dProblem::overlapping,
                             "May one output belong to two windows?")
      .def("bad_index", &bad_index, "op"_a, "index"_a, "n"_a, "c"_a, "p"_a, "q"_a,
           "The sentence that refuses an index outside the plane.");
}

void bind_nearest_unpool2d_problem(py::module_& m) {
  using Problem = NearestUnpool2dProblem;
  py::class_<Problem>(
      m, "NearestUnpool2dProblem",
      "The unpooling of N x C x P x Q values, each of which fills a cell of scale, (vertical, "
      "horizontal).")
      .def(py::init([](int64_t n, int64_t c, int64_t p, int64_t q, Pair scale, DType dtype, Layout layout) {
             return Problem{n, c, p, q, scale[0], scale[1], dtype, layout};
           }),
           py::kw_only(), "n"_a, "c"_a, "p"_a, "q"_a, "scale"_a, "dtype"_a = DType::f32,
           "layout"_a = Layout::nchw)
      .def_readonly("n", &Problem::n)
      .def_readonly("c", &Problem::c)
      .def_readonly("p", &Problem::p)
      .def_readonly("q", &Problem::q)
      .def_property_readonly("h", &Problem::h)
      .def_property_readonly("w", &Problem::w)
      .def_property_readonly("scale", [](const Problem& x) { return Pair{x.scale_h, x.scale_w}; })
      .def_readonly("dtype", &Problem::dtype)
      .def_readonly("layout", &Problem::layout)
      .def_property_readonly("channels_last", [](const Problem& x) { return x.layout == Layout::nhwc; })
      .def("refusal", &Problem::refusal,
           "'' if the problem can be computed; otherwise one sentence that says why not.")
      .def("__str__", &Problem::str)
      .def("__repr__", [](const Problem& x) { return "<" + x.str() + ">"; })
      .def(
          "__eq__", [](const Problem& a, const Problem& b) { return same(a, b); }, py::is_operator())
      .def("__hash__", [](const Problem& x) { return hash(x); });
}

void bind_cpu(py::module_ m) {
  m.doc() = "Kernels for the CPU.\n\n"
            "Tensors are passed as addresses (data_ptr()) and must be dense in the problem's layout. Results "
            "do not\n"
            "depend on the number of threads. The GIL is released. Wrong arguments raise ValueError, and "
            "then nothing\n"
            "has been written, unless a function says otherwise.";
  m.def("instruction_set", &cpu::instruction_set,
        "The instruction set that the kernels use on this machine.");
  m.def("num_threads", &cpu::num_threads, "The most threads that a call uses: torch.get_num_threads().");
  m.def("max_pool2d", &max_pool2d, "problem"_a, "input"_a, "output"_a, "indices"_a,
        "output[n,c,p,q] = max over (r,s) of input[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - "
        "pad_left +\n"
        "s*dilation_w]. The first of equals wins; NaN wins over numbers. indices[n,c,p,q] says who won, in "
        "the form of\n"
        "problem.index; pass 0 if that is none.");
  m.def("max_pool2d_backward", &max_pool2d_backward, "problem"_a, "grad_output"_a, "indices"_a,
        "grad_input"_a,
        "grad_input[n,c,h,w] = sum of grad_output[n,c,p,q] over the windows whose winner is (h, w), in "
        "row-major order\n"
        "of (p, q), accumulated in at least float32 and rounded once. Indices that "
        "max_pool2d did not\n"
        "return for this problem give unspecified gradients, but never lead out of grad_input.");
  m.def("max_pool2d_gather", &max_pool2d_gather, "problem"_a, "input"_a, "indices"_a, "output"_a,
        "output[n,c,p,q] = input at the winner of window (p, q); 0 where the index points outside the plane, "
        "which is\n"
        "how a window without any input is remembered.");
  m.def(
      "max_unpool2d", &max_unpool2d, "problem"_a, "input"_a, "indices"_a, "output"_a,
      "output[n,c] = 0 but for input[n,c,p,q] where indices[n,c,p,q] points to; of several inputs for one "
      "place the\n"
      "last in row-major order of (p, q) is kept. An index that points outside the plane raises ValueError.");
  m.def("max_unpool2d_backward", &max_unpool2d_backward, "problem"_a, "grad_output"_a, "indices"_a,
        "grad_input"_a,
        "grad_input[n,c,p,q] = grad_output where indices[n,c,p,q] points to, or 0 if a later input was put "
        "there.\n"
        "Where an index is refused, grad_input may have been written in part; it holds nothing then.");
  m.def("residual_add", &residual_add, "count"_a, "dtype"_a, "activation"_a, "x"_a, "residual"_a, "output"_a,
        "output[i] = activation(x[i] + residual[i]) for count elements; residual may be 0: then "
        "activation(x[i]).\n"
        "output may be x or residual. 16-bit floats are added in float32 and rounded once.");
  m.def("relu_backward", &relu_backward, "count"_a, "dtype"_a, "grad_output"_a, "output"_a, "grad_input"_a,
        "grad_input[i] = 0 if output[i] <= 0, else grad_output[i], for count elements.");
  m.def("residual_add_mask", &residual_add_mask, "count"_a, "dtype"_a, "x"_a, "residual"_a, "output"_a,
        "mask"_a, "residual_add with a ReLU, and bit i % 8 of mask[i / 8] set where output[i] is not <= 0.");
  m.def("relu_backward_mask", &relu_backward_mask, "count"_a, "dtype"_a, "grad_output"_a, "mask"_a,
        "grad_input"_a, "grad_input[i] = grad_output[i] where that bit is set, else 0.");
}

}  // namespace
}  // namespace pyconvx

PYBIND11_MODULE(_C, m) {
  using namespace pyconvx;
  m.doc() = "pyconvx's native core: problems, and kernels that run them.";
  bind_enum<DType>(m, "DType", "Element type.", {DType::f64, DType::f32, DType::bf16, DType::f16});
  bind_enum<Layout>(m, "Layout", "Order of a tensor in memory.", {Layout::nchw, Layout::nhwc});
  bind_enum<IndexType>(m, "IndexType", "How a pooling remembers its winners.",
                       {IndexType::none, IndexType::u8, IndexType::i32, IndexType::i64});
  bind_enum<Pass>(m, "Pass", "What a convolution computes: output, input gradient or weight gradient.",
                  {Pass::fprop, Pass::dgrad, Pass::wgrad});
  bind_enum<Activation>(m, "Activation", "What is applied last.", {Activation::none, Activation::relu});
  bind_conv2d_problem(m);
  bind_pool2d_problem(m);
  bind_unpool2d_problem(m);
  bind_nearest_unpool2d_problem(m);
  bind_cpu(m.def_submodule("cpu"));
  bind_plan(m);
#ifdef PYCONVX_CUDA
  bind_cuda(m);
#endif
}
