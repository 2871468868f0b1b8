// Bias, activation, gain and clip, y = clip(gain act(x + b)), and its two derivatives.
//
// Macros beside those of common.cuh: PACK (elements a thread) and ACT (one of the structures below). Each gives
// act(v); its slope act'(v) and the slope's derivative, both as functions of the value a = act(v), so that only the
// output need be kept; but for Swish, which has no inverse, of v itself.
#include "common.cuh"

struct Linear {
    static HD Wide act(Wide v) { return v; }
    static HD Wide slope(Wide) { return 1; }
    static HD Wide bend(Wide) { return 0; }
};

struct Relu {
    static HD Wide act(Wide v) { return v < 0 ? Wide(0) : v; }
    static HD Wide slope(Wide a) { return a > 0 ? 1 : 0; }
    static HD Wide bend(Wide) { return 0; }
};

struct Lrelu {
    static HD Wide act(Wide v) { return v > 0 ? v : Wide(0.2) * v; }
    static HD Wide slope(Wide a) { return a > 0 ? Wide(1) : Wide(0.2); }
    static HD Wide bend(Wide) { return 0; }
};

struct Tanh {
    static HD Wide act(Wide v) { return tanh(v); }
    static HD Wide slope(Wide a) { return 1 - a * a; }
    static HD Wide bend(Wide a) { return -2 * a; }
};

struct Sigmoid {
    static HD Wide act(Wide v) { return 1 / (1 + exp(-v)); }
    static HD Wide slope(Wide a) { return a * (1 - a); }
    static HD Wide bend(Wide a) { return 1 - 2 * a; }
};

struct Elu {
    static HD Wide act(Wide v) { return v > 0 ? v : expm1(v); }
    static HD Wide slope(Wide a) { return a > 0 ? Wide(1) : a + 1; }
    static HD Wide bend(Wide a) { return a > 0 ? 0 : 1; }
};

struct Selu {  // Klambauer et al. 2017, arXiv 1706.02515
    static constexpr Wide scale = Wide(1.0507009873554804934), negative = Wide(1.0507009873554804934 * 1.6732632423543772848);
    static HD Wide act(Wide v) { return v > 0 ? scale * v : negative * expm1(v); }
    static HD Wide slope(Wide a) { return a > 0 ? scale : a + negative; }
    static HD Wide bend(Wide a) { return a > 0 ? 0 : 1; }
};

struct Softplus {  // linear from 20 on, as torch's
    static HD Wide act(Wide v) { return v > 20 ? v : log1p(exp(v)); }
    static HD Wide slope(Wide a) { return a > 20 ? Wide(1) : -expm1(-a); }
    static HD Wide bend(Wide a) { return a > 20 ? Wide(0) : exp(-a); }
};

struct Swish {
    static HD Wide act(Wide v) { return v / (1 + exp(-v)); }
    static HD Wide slope(Wide v) {
        const Wide s = Sigmoid::act(v);
        return s * (1 + v * (1 - s));
    }
    static HD Wide bend(Wide v) {
        const Wide s = Sigmoid::act(v);
        return s * (1 - s) * (2 + v * (1 - 2 * s));
    }
};

template <class A, class B> struct Same { static constexpr bool value = false; };
template <class A> struct Same<A, A> { static constexpr bool value = true; };
constexpr bool by_output = !Same<ACT, Swish>::value;

struct Arguments {
    SCALAR* result;
    const SCALAR* first;   // forward: x; backward: dy; second: the gradient of dx
    const SCALAR* second;  // second: dy
    const SCALAR* saved;   // y; for Swish x
    const SCALAR* bias;    // [channels], or null
    long long count, channels, inner;  // channel of element i: i / inner % channels
    double gain, clamp;
    int clipped;
};

using Elements = Pack<SCALAR, PACK>;

HD Elements load(const SCALAR* from, INDEX at) { return *reinterpret_cast<const Elements*>(from + at); }
HD void store(SCALAR* to, INDEX at, const Elements& values) { *reinterpret_cast<Elements*>(to + at) = values; }

// The bias of one element after the other, with one division for all.
struct Bias {
    const SCALAR* values;
    INDEX channel, step, channels, inner;

    HD Bias(const Arguments& a, INDEX element) : values(a.bias), channel(0), step(0), channels(0), inner(0) {
        if (!values) return;
        channels = static_cast<INDEX>(a.channels), inner = static_cast<INDEX>(a.inner);
        channel = element / inner;
        step = element - channel * inner;
        channel %= channels;
    }
    HD Wide next() {
        if (!values) return 0;
        const Wide value = widen(values[channel]);
        if (++step == inner) {
            step = 0;
            if (++channel == channels) channel = 0;
        }
        return value;
    }
};

HD Wide clip(Wide value, Wide clamp) { return value > clamp ? clamp : value < -clamp ? -clamp : value; }

// An element of what was saved: what slope and bend are functions of, and whether the clip let it through.
struct Saved {
    Wide at;
    bool inside;

    HD Saved(const Arguments& a, SCALAR saved, Bias& bias) {
        const Wide gain = static_cast<Wide>(a.gain), value = widen(saved);
        Wide clamp = static_cast<Wide>(a.clamp);
        if (by_output) clamp = widen(narrow<SCALAR>(clamp));  // which is what a clipped output holds
        at = by_output ? value / gain : value + bias.next();
        const Wide y = by_output ? value : gain * ACT::act(at);
        inside = !a.clipped || (y < clamp && -y < clamp);
    }
};

HD void forward_thread(const Arguments& a, INDEX thread) {
    const INDEX element = thread * PACK;
    if (element >= static_cast<INDEX>(a.count)) return;
    const Elements x = load(a.first, element);
    Elements y;
    Bias bias(a, element);
    for (int j = 0; j < PACK; j++) {
        const Wide value = static_cast<Wide>(a.gain) * ACT::act(widen(x.at[j]) + bias.next());
        y.at[j] = narrow<SCALAR>(a.clipped ? clip(value, static_cast<Wide>(a.clamp)) : value);
    }
    store(a.result, element, y);
}

// dx = dy gain act'
HD void backward_thread(const Arguments& a, INDEX thread) {
    const INDEX element = thread * PACK;
    if (element >= static_cast<INDEX>(a.count)) return;
    const Elements dy = load(a.first, element), saved = load(a.saved, element);
    Elements dx;
    Bias bias(a, element);
    for (int j = 0; j < PACK; j++) {
        const Saved s(a, saved.at[j], bias);
        const Wide slope = s.inside ? static_cast<Wide>(a.gain) * ACT::slope(s.at) : Wide(0);
        dx.at[j] = narrow<SCALAR>(widen(dy.at[j]) * slope);
    }
    store(a.result, element, dx);
}

// The derivative of <ddx, dx> by what was saved: of gain act' by y = gain a, where the gains cancel; for Swish by x.
HD void second_thread(const Arguments& a, INDEX thread) {
    const INDEX element = thread * PACK;
    if (element >= static_cast<INDEX>(a.count)) return;
    const Elements ddx = load(a.first, element), dy = load(a.second, element), saved = load(a.saved, element);
    Elements result;
    Bias bias(a, element);
    for (int j = 0; j < PACK; j++) {
        const Saved s(a, saved.at[j], bias);
        const Wide bend = s.inside ? (by_output ? Wide(1) : static_cast<Wide>(a.gain)) * ACT::bend(s.at) : Wide(0);
        result.at[j] = narrow<SCALAR>(widen(ddx.at[j]) * widen(dy.at[j]) * bend);
    }
    store(a.result, element, result);
}

KERNEL(forward, Arguments)
KERNEL(backward, Arguments)
KERNEL(second, Arguments)
