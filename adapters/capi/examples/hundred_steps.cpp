// hundred_steps.c in C++: RAII handles, errors as exceptions.
#include "bitstep.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

template <typename Call>
void check(Call call) {
    bitstep_error error{};
    if (call(&error) != BITSTEP_OK) throw std::runtime_error(error.message);
}

struct Optimizer {
    bitstep_optimizer *handle = nullptr;
    Optimizer() { check([&](auto e) { return bitstep_optimizer_new(&handle, e); }); }
    ~Optimizer() { bitstep_optimizer_free(handle); }
    Optimizer(const Optimizer &) = delete;
    Optimizer &operator=(const Optimizer &) = delete;

    std::size_t add_group(const char *name, const std::string &arguments) {
        std::size_t group = 0;
        check([&](auto e) { return bitstep_optimizer_add_group(handle, name, arguments.c_str(), &group, e); });
        return group;
    }
    void add_param(std::size_t group, const std::vector<std::size_t> &shape, std::uint32_t dtype) {
        check([&](auto e) {
            return bitstep_optimizer_add_param(handle, group, shape.data(), shape.size(), dtype, e);
        });
    }
};

using Schedule = std::unique_ptr<bitstep_schedule, decltype(&bitstep_schedule_free)>;

void run() {
    Optimizer optimizer;
    const auto adamw = optimizer.add_group("adamw_torch", "lr=1e-2, weight_decay=0.1");
    const auto flash = optimizer.add_group("flash_adamw", "lr=1e-2");
    optimizer.add_param(adamw, {3, 2}, BITSTEP_F32);
    optimizer.add_param(flash, {40}, BITSTEP_BF16);
    bitstep_schedule *made = nullptr;
    const char *arguments =
        R"({"lr": 1e-2, "num_warmup_steps": 10, "num_training_steps": 100, "groups": [{}, {}]})";
    check([&](auto e) { return bitstep_schedule_new("cosine", arguments, &made, e); });
    const Schedule schedule(made, bitstep_schedule_free);

    bool refused = false;
    try {
        optimizer.add_group("adamw_torch", "lr=-1");
    } catch (const std::runtime_error &e) {
        refused = std::string(e.what()).find("lr") != std::string::npos;
    }
    if (!refused) throw std::runtime_error("a negative rate was not refused");

    std::array<float, 6> a{}, grad_a{};
    std::array<std::uint16_t, 40> b{}, grad_b{};
    for (std::size_t i = 0; i < a.size(); i++) a[i] = static_cast<float>(i) - 2.5f;
    for (std::size_t i = 0; i < b.size(); i++) b[i] = static_cast<std::uint16_t>(0x3f80 + i);
    for (int t = 0; t < 100; t++) {
        grad_a = a;
        grad_b = b;
        double norm = 0;
        const bitstep_tensor to_clip{grad_a.data(), a.size(), BITSTEP_F32, BITSTEP_F32, nullptr};
        check([&](auto e) { return bitstep_clip_grad_norm(&to_clip, 1, 1.0, 2.0, &norm, e); });
        const std::array<bitstep_tensor, 2> tensors{{
            {a.data(), a.size(), BITSTEP_F32, BITSTEP_F32, grad_a.data()},
            {b.data(), b.size(), BITSTEP_BF16, BITSTEP_BF16, grad_b.data()},
        }};
        check([&](auto e) { return bitstep_schedule_apply(schedule.get(), optimizer.handle, e); });
        check([&](auto e) {
            return bitstep_optimizer_step(optimizer.handle, tensors.data(), tensors.size(), nullptr, 0, e);
        });
        check([&](auto e) { return bitstep_schedule_step(schedule.get(), nullptr, 0, e); });
    }
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
