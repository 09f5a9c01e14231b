// train.c in C++, with bitstep.hpp.
#include <bitstep.hpp>

#include <cstdio>

int main() {
    try {
        const std::size_t one[] = {1};
        bitstep::training training(
            R"({"optim": "adamw_torch", "learning_rate": 0.1, "weight_decay": 0.001, "max_steps": 200,
                "lr_scheduler_type": "cosine", "gradient_accumulation_steps": 2, "max_grad_norm": 1.0})",
            {{"line.weight", one, 1, BITSTEP_F32, BITSTEP_LAYER_LINEAR},
             {"line.bias", one, 1, BITSTEP_F32, BITSTEP_LAYER_LINEAR}});
        bitstep::accumulator accumulator(training.setup.gradient_accumulation_steps);

        std::vector<float> w{0}, b{0}, grad_w{0}, grad_b{0}, total_w{0}, total_b{0};
        std::uint64_t steps = 0;
        for (int batch = 0; steps < training.setup.num_training_steps; batch++) {
            const float x = static_cast<float>(batch % 5) - 2, y = 2 * x + 1, off = w[0] * x + b[0] - y;
            grad_w[0] = off * x;
            grad_b[0] = off;
            const auto sums = {bitstep::tensor(total_w, grad_w), bitstep::tensor(total_b, grad_b)};
            if (!accumulator.add(sums)) continue;
            bitstep::clip_grad_norm(sums, training.setup.max_grad_norm, 2, true);
            training.optimizer.step_threads({bitstep::tensor(w, total_w), bitstep::tensor(b, total_b)});
            training.schedule.step();
            training.optimizer.follow(training.schedule);
            steps++;
        }
        std::printf("y = %.2f x + %.2f\n", static_cast<double>(w[0]), static_cast<double>(b[0]));
        return w[0] > 1.9f && w[0] < 2.1f && b[0] > 0.9f && b[0] < 1.1f ? 0 : 1;
    } catch (const bitstep::error &e) {
        std::fprintf(stderr, "bitstep: %d: %s\n", static_cast<int>(e.status()), e.what());
        return 1;
    }
}
