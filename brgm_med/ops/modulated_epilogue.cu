// What follows a modulated convolution: y = max(v, v / 5), v = x + c_0 + c_1 noise.
//
// Macros beside those of common.cuh: PACK (elements a thread) and LAST (1 for channels-last order, else 0).
#include "common.cuh"

struct Arguments {
    SCALAR* result;  // [N, C, H, W], in the order of x
    const SCALAR* x;
    const SCALAR* coefficients;  // [N, 2, C]; without noise [N, 1, C]
    const SCALAR* noise;         // [N or 1, H W], or null
    long long count, channels, pixels;
    long long noise_step;    // from one image's noise to the next one's; 0 for one noise
};

using Elements = Pack<SCALAR, PACK>;

// The place of one element after the other: the faster and the slower of channel and pixel, then the image.
struct Place {
    INDEX fast, slow, image, fasts, slows;

    HD Place(const Arguments& a, INDEX element)
        : fast(0), slow(0), image(0), fasts(static_cast<INDEX>(LAST ? a.channels : a.pixels)),
          slows(static_cast<INDEX>(LAST ? a.pixels : a.channels)) {
        const INDEX row = element / fasts;
        fast = element - row * fasts;
        image = row / slows;
        slow = row - image * slows;
    }
    HD INDEX channel() const { return LAST ? fast : slow; }
    HD INDEX pixel(INDEX noise_step) const { return image * noise_step + (LAST ? slow : fast); }
    HD void next() {
        if (++fast < fasts) return;
        fast = 0;
        if (++slow < slows) return;
        slow = 0;
        image++;
    }
};

HD void forward_thread(const Arguments& a, INDEX thread) {
    const INDEX element = thread * PACK;
    if (element >= static_cast<INDEX>(a.count)) return;
    const Elements x = *reinterpret_cast<const Elements*>(a.x + element);
    Elements y;
    Place place(a, element);
    for (int j = 0; j < PACK; j++) {
        const INDEX channels = static_cast<INDEX>(a.channels);
        const SCALAR* c = a.coefficients + place.image * channels * (a.noise ? 2 : 1) + place.channel();
        Wide v = widen(x.at[j]) + widen(c[0]);
        if (a.noise) v += widen(c[channels]) * widen(a.noise[place.pixel(static_cast<INDEX>(a.noise_step))]);
        y.at[j] = narrow<SCALAR>(v > 0 ? v : Wide(0.2) * v);
        place.next();
    }
    *reinterpret_cast<Elements*>(a.result + element) = y;
}

KERNEL(forward, Arguments)
