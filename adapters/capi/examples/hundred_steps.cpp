// hundred_steps.c in C++, with bitstep.hpp.
#include "bitstep.hpp"

#include <array>
#include <cstdio>
#include <cstring>

namespace {

bitstep::optimizer make() {
    bitstep::optimizer optimizer;
    const auto adamw = optimizer.add_group("adamw_torch", "lr=1e-2, weight_decay=0.1");
    const auto flash = optimizer.add_group("flash_adamw", R"({"lr": 1e-2})");
    optimizer.add_param(adamw, {3, 2});
    optimizer.add_param(flash, {40}, BITSTEP_BF16);
    return optimizer;
}

void expect(bool holds, const char *what) {
    if (!holds) throw std::runtime_error(what);
}

void run() {
    auto optimizer = make();
    const auto *arguments = R"({"lr": 1e-2, "num_warmup_steps": 10, "num_training_steps": 100, "groups": [{}, {}]})";
    bitstep::schedule schedule("cosine", arguments);
    expect(schedule.lr_at(10) == 1e-2 && schedule.lr() == 0, "the end of the warm-up");

    try {
        optimizer.add_group("adamw_torch", "lr=-1");
        expect(false, "a negative rate was not refused");
    } catch (const bitstep::error &e) {
        expect(e.status() == BITSTEP_ARGUMENT && std::strstr(e.what(), "lr"), "another error");
    }

    std::array<float, 6> a{}, grad_a{};
    std::array<std::uint16_t, 40> b{}, grad_b{};
    for (std::size_t i = 0; i < a.size(); i++) a[i] = static_cast<float>(i) - 2.5f;
    for (std::size_t i = 0; i < b.size(); i++) b[i] = static_cast<std::uint16_t>(0x3f80 + i);
    for (int t = 0; t < 100; t++) {
        if (t == 50) { // another optimizer goes on
            const auto memory = optimizer.save();
            optimizer = make();
            optimizer.load(memory);
            schedule = schedule.clone();
        }
        grad_a = a;
        grad_b = b;
        bitstep::clip_grad_norm({bitstep::tensor(grad_a)}, 1.0);
        optimizer.follow(schedule);
        const auto tensors = {bitstep::tensor(a, grad_a),
                              bitstep::tensor_of(b.data(), b.size(), BITSTEP_BF16, grad_b.data())};
        optimizer.step(tensors);
        schedule.step();
    }
    expect(optimizer.param_steps(0) == 100, "the number of steps");
    expect(optimizer.slot(1, "exp_avg").size() == 40, "a slot of 8-bit codes, decoded");
    expect(optimizer.arguments(0).find("\"weight_decay\": 0.1") != std::string::npos, "the arguments");
    for (float x : a) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &x, sizeof bits);
        std::printf("%08x\n", static_cast<unsigned>(bits));
    }
    for (std::uint16_t x : b) std::printf("%04x\n", static_cast<unsigned>(x));
}

}  // namespace

int main() {
    try {
        run();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "bitstep: %s\n", e.what());
        return 1;
    }
}
