//! Where whisper.cpp's calls arrive.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::LazyLock;

use whisper_rs::whisper_rs_sys::{
    self as sys, ggml_context, ggml_op_GGML_OP_MUL_MAT as MUL_MAT, ggml_op_GGML_OP_SOFT_MAX as SOFT_MAX, ggml_tensor,
    ggml_type_GGML_TYPE_F16 as TYPE_F16, ggml_type_GGML_TYPE_F32 as TYPE_F32,
};

use super::attention::{self, Head};
use super::float::{self, Matrix, Right};
use super::int8::{self, BLOCK_BYTES, Blocks};
use super::lanes::{Out, ROWS};

// ggml's numbers for its types.
const F32: c_int = 0;
const F16: c_int = 1;
const Q8_0: c_int = 8;

/// The beginning of `ggml_compute_params`: which thread of how many.
#[repr(C)]
struct Turn {
    ith: c_int,
    nth: c_int,
}

unsafe extern "C" {
    fn __real_llamafile_sgemm(
        turn: *const Turn,
        m: i64,
        n: i64,
        k: i64,
        a: *const c_void,
        lda: i64,
        b: *const c_void,
        ldb: i64,
        c: *mut c_void,
        ldc: i64,
        a_type: c_int,
        b_type: c_int,
        c_type: c_int,
    ) -> bool;
    fn __real_ggml_mul_mat(context: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    fn __real_ggml_backend_init_by_type(kind: c_int, parameters: *const std::ffi::c_char) -> *mut c_void;
    fn ggml_backend_cpu_set_n_threads(backend: *mut c_void, threads: c_int);
    fn ggml_backend_is_cpu(backend: *mut c_void) -> bool;
}

/// Whether this CPU has what the kernels need.
pub(super) fn usable() -> bool {
    static USABLE: LazyLock<bool> = LazyLock::new(|| {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    });
    *USABLE
}

/// How often this thread has worked here: shows that the linker leads whisper.cpp's calls to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Matrix products.
    pub products: u64,
    /// Heads of an encoder layer's attention.
    pub attentions: u64,
}

/// What this thread has done so far.
pub(super) fn done() -> Done {
    DONE.get()
}

thread_local! {
    static SCRATCH: RefCell<(int8::Scratch, float::Scratch)> = RefCell::default();
    static ATTENTION: RefCell<attention::Scratch> = RefCell::default();
    static DONE: Cell<Done> = const { Cell::new(Done { products: 0, attentions: 0 }) };
}

/// `c[n][m] = a[m][k] · b[n][k]`, lengths and distances in blocks of the types. `false`: the caller does it in its own way.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_llamafile_sgemm(
    turn: *const Turn,
    m: i64,
    n: i64,
    k: i64,
    a: *const c_void,
    lda: i64,
    b: *const c_void,
    ldb: i64,
    c: *mut c_void,
    ldc: i64,
    a_type: c_int,
    b_type: c_int,
    c_type: c_int,
) -> bool {
    let sizes = [m, n, k, lda, ldb, ldc].map(usize::try_from);
    // SAFETY: ggml calls with its parameters, which begin with these two numbers.
    let alone = unsafe { (*turn).nth } == 1;
    // The voice detector's small products are not worth sorting anything for, and single columns of halves neither.
    let worth = m >= ROWS as i64 && n >= if a_type == Q8_0 { 1 } else { 8 } && k > 0;
    let ours = matches!((a_type, b_type), (Q8_0, Q8_0) | (F16, F16 | F32)) && c_type == F32 && alone && worth && usable();
    if ours && let [Ok(m), Ok(n), Ok(k), Ok(lda), Ok(ldb), Ok(ldc)] = sizes {
        // The last row need not be followed by the gap to a next one.
        let length = |rows: usize, stride: usize, row: usize| (rows - 1) * stride + row;
        // SAFETY: these are the sizes that ggml gives its own function for the same pointers; it writes `c` nowhere else meanwhile.
        DONE.set(Done { products: DONE.get().products + 1, ..DONE.get() });
        SCRATCH.with_borrow_mut(|(int8, float)| unsafe {
            let out = &mut Out { data: std::slice::from_raw_parts_mut(c.cast::<f32>(), length(n, ldc, m)), stride: ldc, rows: m };
            if a_type == Q8_0 {
                let blocks = |data: *const c_void, rows, stride: usize| Blocks {
                    bytes: std::slice::from_raw_parts(data.cast(), length(rows, stride * BLOCK_BYTES, k * BLOCK_BYTES)),
                    stride: stride * BLOCK_BYTES,
                    blocks: k,
                };
                return int8::product(blocks(a, m, lda), blocks(b, n, ldb), n, out, int8);
            }
            let left = Matrix { data: std::slice::from_raw_parts(a.cast::<u16>(), length(m, lda, k)), stride: lda, length: k };
            let right = if b_type == F16 {
                Right::Half(Matrix { data: std::slice::from_raw_parts(b.cast::<u16>(), length(n, ldb, k)), stride: ldb, length: k })
            } else {
                Right::Whole(Matrix { data: std::slice::from_raw_parts(b.cast::<f32>(), length(n, ldb, k)), stride: ldb, length: k })
            };
            float::product(left, right, n, out, float);
        });
        return true;
    }
    // SAFETY: as we were called.
    unsafe { __real_llamafile_sgemm(turn, m, n, k, a, lda, b, ldb, c, ldc, a_type, b_type, c_type) }
}

/// whisper.cpp aligns words on a backend of four threads that it makes for each piece and that nobody can set otherwise: three of
/// them only wait, spinning, for the fourth (13 % of a transcript's CPU seconds on an idle machine; far more on a busy one).
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_backend_init_by_type(kind: c_int, parameters: *const std::ffi::c_char) -> *mut c_void {
    // SAFETY: as we were called; the backend is a CPU's where it says so.
    unsafe {
        let backend = __real_ggml_backend_init_by_type(kind, parameters);
        if !backend.is_null() && ggml_backend_is_cpu(backend) {
            ggml_backend_cpu_set_n_threads(backend, 1);
        }
        backend
    }
}

/// While whisper.cpp lays out its computation: where values are to be weighed by the softmax of keys times queries, and nothing is
/// masked, that becomes one step of ours. Scores that something else wants as well (the alignment of words) are made for it as before.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_mul_mat(
    context: *mut ggml_context,
    values: *mut ggml_tensor,
    weights: *mut ggml_tensor,
) -> *mut ggml_tensor {
    // SAFETY: ggml's tensors live as long as the context that they are laid out in.
    unsafe {
        if let Some((keys, queries, scale)) = attended(&*values, &*weights)
            && usable()
        {
            let (v, q) = (&*values, &*queries);
            let mut of = [values, keys, queries];
            let scale = std::ptr::without_provenance_mut(scale.to_bits() as usize);
            return sys::ggml_custom_4d(context, TYPE_F32, v.ne[1], q.ne[1], q.ne[2], 1, of.as_mut_ptr(), 3, Some(attend), 1, scale);
        }
        __real_ggml_mul_mat(context, values, weights)
    }
}

/// Keys, queries and scale, where this is an attention of the kind that [`attend`] does.
unsafe fn attended(values: &ggml_tensor, weights: &ggml_tensor) -> Option<(*mut ggml_tensor, *mut ggml_tensor, f32)> {
    // SAFETY: the sources of a tensor live as long as it does.
    let source = |tensor: &ggml_tensor, n: usize| unsafe { tensor.src[n].as_ref() };
    let scores = source(weights, 0)?;
    let (keys, queries) = (source(scores, 0)?, source(scores, 1)?);
    let [scale, bias] = [weights.op_params[0], weights.op_params[1]].map(|bits| f32::from_bits(bits.cast_unsigned()));
    let fits = weights.op == SOFT_MAX
        && weights.src[1].is_null()
        && bias == 0.0
        && scores.op == MUL_MAT
        && (values.type_, keys.type_, queries.type_) == (TYPE_F16, TYPE_F16, TYPE_F32)
        && values.ne[0] == keys.ne[1]
        && keys.ne[0] == queries.ne[0]
        && [values.ne[2], keys.ne[2]] == [queries.ne[2]; 2]
        && [values.ne[3], keys.ne[3], queries.ne[3]] == [1; 3]
        // Numbers of a row lie side by side.
        && (values.nb[0], keys.nb[0], queries.nb[0]) == (2, 2, 4)
        // A decoder's single query is not worth sorting keys for.
        && queries.ne[1] >= 64;
    fits.then_some((scores.src[0], scores.src[1], scale))
}

/// The step: `to` has values, keys and queries as sources, the scale's bits are the address that belongs to it.
unsafe extern "C" fn attend(to: *mut ggml_tensor, ith: c_int, _threads: c_int, scale: *mut c_void) {
    if ith != 0 {
        return;
    }
    // SAFETY: `attended` has looked at the sources, ggml has given all of them memory of the sizes they say, and nothing else is
    // computed meanwhile.
    unsafe {
        let to = &*to;
        let (values, keys, queries) = (&*to.src[0], &*to.src[1], &*to.src[2]);
        let (dimensions, query_count) = (to.ne[0] as usize, to.ne[1] as usize);
        ATTENTION.with_borrow_mut(|scratch| {
            for n in 0..to.ne[2] as usize {
                DONE.set(Done { attentions: DONE.get().attentions + 1, ..DONE.get() });
                let scale = f32::from_bits(scale.addr() as u32);
                let head = Head { keys: head(keys, n), values: head(values, n), queries: head(queries, n), query_count, scale };
                let data = std::slice::from_raw_parts_mut(to.data.byte_add(to.nb[2] * n).cast::<f32>(), dimensions * query_count);
                attention::attend(&head, &mut Out { data, stride: dimensions, rows: dimensions }, scratch);
            }
        });
    }
}

/// A head's part of a tensor.
unsafe fn head<T>(tensor: &ggml_tensor, n: usize) -> Matrix<'_, T> {
    let (length, rows, stride) = (tensor.ne[0] as usize, tensor.ne[1] as usize, tensor.nb[1] / size_of::<T>());
    // SAFETY: the last row need not be followed by the gap to a next one.
    let data = unsafe { std::slice::from_raw_parts(tensor.data.byte_add(tensor.nb[2] * n).cast::<T>(), (rows - 1) * stride + length) };
    Matrix { data, stride, length }
}
