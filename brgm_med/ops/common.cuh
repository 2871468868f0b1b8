// Scalars, packs and the frame of a kernel. Any C++17 compiler takes these files: NVRTC makes kernels of them, and
// a host compiler makes loops over the same threads, which is how the arithmetic and the indices are tested without
// a GPU. Nothing of the CUDA toolkit is included.
//
// A source is compiled once for each choice of the macros SCALAR (float, double, Half or BFloat16) and INDEX
// (unsigned, or long long from 2^31 elements on).
#pragma once

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
#define HD inline
using std::exp;
using std::expm1;
using std::log1p;
using std::tanh;
#endif

// KERNEL(name, Arguments) makes a kernel of `HD void name_thread(const Arguments&, INDEX thread)`: one call for each
// thread of a one-dimensional launch, surplus threads included.
#ifdef __CUDACC__
#define KERNEL(name, Arguments)                                                                  \
    extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Arguments arguments) { \
        name##_thread(arguments, static_cast<INDEX>(blockIdx.x) * blockDim.x + threadIdx.x);     \
    }
#else
#define KERNEL(name, Arguments)                                              \
    extern "C" void name(const Arguments* arguments, long long threads) {    \
        for (long long thread = 0; thread < threads; thread++)               \
            name##_thread(*arguments, static_cast<INDEX>(thread));           \
    }
#endif

HD unsigned bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    unsigned bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

HD float float_of(unsigned bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value = 0;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

// IEEE binary16 and bfloat16 as they lie in memory. All arithmetic is done in `Wide`.
struct Half {
    unsigned short bits;
};

struct BFloat16 {
    unsigned short bits;
};

// Round to the nearest, ties to even: add half of what is dropped, and one less where the kept part is even.
HD unsigned rounded_shift(unsigned bits, int shift) {
    const unsigned even = (bits >> shift) & 1u;
    return (bits + ((1u << (shift - 1)) - 1u) + even) >> shift;
}

HD float widen(BFloat16 value) { return float_of(static_cast<unsigned>(value.bits) << 16); }

HD BFloat16 narrow_bfloat16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    BFloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const unsigned bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};  // not a number
    return {static_cast<unsigned short>(rounded_shift(bits, 16))};
#endif
}

HD float widen(Half value) {
#ifdef __CUDA_ARCH__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    const unsigned sign = (value.bits & 0x8000u) << 16, exponent = (value.bits >> 10) & 31u, mantissa = value.bits & 1023u;
    if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
    if (exponent > 0) return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
    return float_of(sign | bits_of(subnormal));
#endif
}

HD Half narrow_half(float value) {
#ifdef __CUDA_ARCH__
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const unsigned bits = bits_of(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
    unsigned result = 0;
    if (size > 0x7f800000u) {
        result = 0x7fffu;                          // not a number
    } else if (size >= 0x477ff000u) {
        result = 0x7c00u;                          // from halfway between the largest number, 65504, and 2^16 on
    } else if (size >= 0x38800000u) {
        result = rounded_shift(size - 0x38000000u, 13);  // a carry runs on into the exponent, as it should
    } else if (size >= 0x33000000u) {
        // Below 2^-14 the result counts units of 2^-24: the mantissa with its leading 1, shifted.
        const int shift = 126 - static_cast<int>(size >> 23);
        result = rounded_shift((size & 0x7fffffu) | 0x800000u, shift);
    }
    return {static_cast<unsigned short>(sign | result)};
#endif
}

HD float widen(float value) { return value; }
HD double widen(double value) { return value; }

// The type in which a scalar is reckoned, and the way back.
template <class T> struct Arithmetic { using Wide = float; };
template <> struct Arithmetic<double> { using Wide = double; };

template <class T> HD T narrow(typename Arithmetic<T>::Wide value);
template <> HD float narrow<float>(float value) { return value; }
template <> HD double narrow<double>(double value) { return value; }
template <> HD Half narrow<Half>(float value) { return narrow_half(value); }
template <> HD BFloat16 narrow<BFloat16>(float value) { return narrow_bfloat16(value); }

// `size` neighbours in memory that are moved in one access.
template <class T, int size> struct alignas(sizeof(T) * size) Pack {
    T at[size];
};

#ifdef SCALAR
using Wide = Arithmetic<SCALAR>::Wide;
#endif
