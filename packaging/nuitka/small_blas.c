/*
 * The CBLAS calls that numpy's core makes, in plain loops.
 *
 * numpy's wheels bring OpenBLAS, 25 to 35 MB of it. The agent multiplies no matrices (the inference engine has its
 * own kernels), but numpy's core does not load without these names. They are correct, not fast. Names carry the
 * suffix of numpy's 64-bit-integer build. LAPACK is not here: see left_out.py.
 */
#include <complex.h>
#include <stdint.h>

typedef int64_t blas_int;
enum { ROW_MAJOR = 101 };
enum { NO_TRANSPOSE = 111, TRANSPOSE = 112, CONJUGATE = 113 };
enum { UPPER = 121 };

/* With a negative stride the vector starts at its far end. */
static blas_int first(blas_int n, blas_int step) { return step < 0 ? (1 - n) * step : 0; }

static float conj_s(float x) { return x; }
static double conj_d(double x) { return x; }

#define AXPY(P, T, SCALAR, VALUE)                                                                                  \
    void cblas_##P##axpy64_(blas_int n, SCALAR alpha, const void *xv, blas_int xs, void *yv, blas_int ys) {        \
        const T *x = xv, a = VALUE(T, alpha);                                                                      \
        T *y = yv;                                                                                                 \
        x += first(n, xs), y += first(n, ys);                                                                      \
        for (blas_int i = 0; i < n; i++) y[i * ys] += a * x[i * xs];                                               \
    }

#define DOT(NAME, T, RETURN, RESULT_PARAM, CONJ, FINISH)                                                           \
    RETURN NAME(blas_int n, const void *xv, blas_int xs, const void *yv, blas_int ys RESULT_PARAM) {               \
        const T *x = xv, *y = yv;                                                                                  \
        T sum = 0;                                                                                                 \
        x += first(n, xs), y += first(n, ys);                                                                      \
        for (blas_int i = 0; i < n; i++) sum += CONJ(x[i * xs]) * y[i * ys];                                       \
        FINISH;                                                                                                    \
    }

/* op(A) is rows by columns; element (i, j) of it, A stored in `order` with leading dimension ld. */
#define ELEMENT(P, T, CONJ)                                                                                        \
    static T at_##P(const T *a, int order, int op, blas_int ld, blas_int i, blas_int j) {                          \
        int swap = (order != ROW_MAJOR) != (op != NO_TRANSPOSE);                                                   \
        T value = swap ? a[j * ld + i] : a[i * ld + j];                                                            \
        return op == CONJUGATE ? CONJ(value) : value;                                                              \
    }

#define GEMM(P, T, SCALAR, VALUE)                                                                                  \
    void cblas_##P##gemm64_(int order, int opa, int opb, blas_int m, blas_int n, blas_int k, SCALAR alpha_,        \
                            const void *a, blas_int lda, const void *b, blas_int ldb, SCALAR beta_, void *cv,      \
                            blas_int ldc) {                                                                        \
        const T alpha = VALUE(T, alpha_), beta = VALUE(T, beta_);                                                  \
        for (blas_int i = 0; i < m; i++)                                                                           \
            for (blas_int j = 0; j < n; j++) {                                                                     \
                T sum = 0, *c = (T *)cv + (order == ROW_MAJOR ? i * ldc + j : j * ldc + i);                        \
                for (blas_int l = 0; l < k; l++)                                                                   \
                    sum += at_##P(a, order, opa, lda, i, l) * at_##P(b, order, opb, ldb, l, j);                    \
                *c = alpha * sum + (beta == 0 ? 0 : beta * *c);                                                    \
            }                                                                                                      \
    }

/* `m` and `n` are those of A as stored; op(A) maps x to y. */
#define GEMV(P, T, SCALAR, VALUE)                                                                                  \
    void cblas_##P##gemv64_(int order, int op, blas_int m, blas_int n, SCALAR alpha_, const void *a, blas_int lda, \
                            const void *xv, blas_int xs, SCALAR beta_, void *yv, blas_int ys) {                    \
        const T alpha = VALUE(T, alpha_), beta = VALUE(T, beta_), *x = xv;                                         \
        const blas_int rows = op == NO_TRANSPOSE ? m : n, columns = op == NO_TRANSPOSE ? n : m;                    \
        T *y = yv;                                                                                                 \
        x += first(columns, xs), y += first(rows, ys);                                                             \
        for (blas_int i = 0; i < rows; i++) {                                                                      \
            T sum = 0;                                                                                             \
            for (blas_int j = 0; j < columns; j++) sum += at_##P(a, order, op, lda, i, j) * x[j * xs];             \
            y[i * ys] = alpha * sum + (beta == 0 ? 0 : beta * y[i * ys]);                                          \
        }                                                                                                          \
    }

/* C is n by n, only the triangle named by `uplo` is touched. */
#define SYRK(P, T, SCALAR, VALUE)                                                                                  \
    void cblas_##P##syrk64_(int order, int uplo, int op, blas_int n, blas_int k, SCALAR alpha_, const void *a,     \
                            blas_int lda, SCALAR beta_, void *cv, blas_int ldc) {                                  \
        const T alpha = VALUE(T, alpha_), beta = VALUE(T, beta_);                                                  \
        for (blas_int i = 0; i < n; i++)                                                                           \
            for (blas_int j = uplo == UPPER ? i : 0; j < (uplo == UPPER ? n : i + 1); j++) {                       \
                T sum = 0, *c = (T *)cv + (order == ROW_MAJOR ? i * ldc + j : j * ldc + i);                        \
                for (blas_int l = 0; l < k; l++)                                                                   \
                    sum += at_##P(a, order, op, lda, i, l) * at_##P(a, order, op, lda, j, l);                      \
                *c = alpha * sum + (beta == 0 ? 0 : beta * *c);                                                    \
            }                                                                                                      \
    }

#define BY_VALUE(T, x) (x)
#define BY_REFERENCE(T, x) (*(const T *)(x))
#define NOTHING
#define RESULT , void *result

#define FAMILY(P, T, SCALAR, VALUE, CONJ)                                                                          \
    ELEMENT(P, T, CONJ) AXPY(P, T, SCALAR, VALUE) GEMM(P, T, SCALAR, VALUE) GEMV(P, T, SCALAR, VALUE)              \
    SYRK(P, T, SCALAR, VALUE)

FAMILY(s, float, float, BY_VALUE, conj_s)
FAMILY(d, double, double, BY_VALUE, conj_d)
FAMILY(c, float complex, const void *, BY_REFERENCE, conjf)
FAMILY(z, double complex, const void *, BY_REFERENCE, conj)

DOT(cblas_sdot64_, float, float, NOTHING, conj_s, return sum)
DOT(cblas_ddot64_, double, double, NOTHING, conj_d, return sum)
DOT(cblas_cdotu_sub64_, float complex, void, RESULT, , *(float complex *)result = sum)
DOT(cblas_cdotc_sub64_, float complex, void, RESULT, conjf, *(float complex *)result = sum)
DOT(cblas_zdotu_sub64_, double complex, void, RESULT, , *(double complex *)result = sum)
DOT(cblas_zdotc_sub64_, double complex, void, RESULT, conj, *(double complex *)result = sum)
