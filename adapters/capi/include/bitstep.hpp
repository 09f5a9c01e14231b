// bitstep in C++17: handles that free themselves, errors as exceptions, memory as spans. Everything else is
// bitstep.h, which says what each function does.
#ifndef BITSTEP_HPP
#define BITSTEP_HPP

#include "bitstep.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace bitstep {

/// A status that is not BITSTEP_OK, with the library's message.
class error : public std::runtime_error {
  public:
    error(std::int32_t status, const char *message) : std::runtime_error(message), status_(status) {}
    /// BITSTEP_ARGUMENT, BITSTEP_LENGTH, …
    std::int32_t status() const noexcept { return status_; }

  private:
    std::int32_t status_;
};

/// Calls `f(…, bitstep_error *)`, and throws what it reports.
template <typename... Parameters, typename... Arguments>
void call(std::int32_t (*f)(Parameters...), Arguments &&...arguments) {
    bitstep_error report;
    report.message[0] = 0;
    const std::int32_t status = f(std::forward<Arguments>(arguments)..., &report);
    if (status != BITSTEP_OK) throw error(status, report.message);
}

namespace detail {

template <auto Free>
struct deleter {
    template <typename T>
    void operator()(T *handle) const noexcept {
        Free(handle);
    }
};

/// A text that `f(…, text, size, needed, error)` writes.
template <typename F, typename... Arguments>
std::string text(F f, Arguments... arguments) {
    std::size_t needed = 0;
    call(f, arguments..., static_cast<char *>(nullptr), std::size_t{0}, &needed);
    std::string text(needed, '\0');
    call(f, arguments..., text.data(), text.size(), &needed);
    text.resize(needed - 1);
    return text;
}

template <typename Size, typename Save, typename Handle>
std::vector<std::uint8_t> saved(Size size_of, Save save, const Handle *handle) {
    std::size_t size = 0;
    call(size_of, handle, &size);
    std::vector<std::uint8_t> memory(size);
    call(save, handle, memory.data(), size);
    return memory;
}

}  // namespace detail

/// The number of an element type: float and double; 16-bit types, which are std::uint16_t in memory, are named.
template <typename T>
constexpr std::uint32_t dtype_of() {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "name the type: tensor_of(data, len, BITSTEP_BF16)");
    return std::is_same_v<T, double> ? BITSTEP_F64 : BITSTEP_F32;
}

/// A parameter in a container (std::vector, std::array, …) with its gradient.
template <typename Values, typename Gradient>
bitstep_tensor tensor(Values &values, const Gradient &gradient) {
    if (values.size() != gradient.size()) throw error(BITSTEP_LENGTH, "grad: of another length than its parameter");
    using element = std::remove_reference_t<decltype(*values.data())>;
    using of_gradient = std::remove_const_t<std::remove_reference_t<decltype(*gradient.data())>>;
    return {values.data(), values.size(), dtype_of<element>(), dtype_of<of_gradient>(), gradient.data()};
}

/// A tensor without a gradient, or gradients that are themselves to be clipped, unscaled, …
template <typename Values>
bitstep_tensor tensor(Values &values) {
    using element = std::remove_reference_t<decltype(*values.data())>;
    return {values.data(), values.size(), dtype_of<element>(), dtype_of<element>(), nullptr};
}

/// A tensor of a type that C++ has no name for.
inline bitstep_tensor tensor_of(void *data, std::size_t len, std::uint32_t dtype, const void *grad = nullptr) {
    return {data, len, dtype, dtype, grad};
}

/// The tensors of all parameters, in the order in which these were added. A list in braces is one, too.
using tensors = std::vector<bitstep_tensor>;

/// Named numbers for a step, such as {{"train_loss", 0.5}}.
using numbers = std::vector<bitstep_number>;

/// A schedule for all groups of an optimizer.
class schedule {
  public:
    explicit schedule(bitstep_schedule *handle) noexcept : handle_(handle) {}
    explicit schedule(const std::string &name, const std::string &arguments = "") {
        bitstep_schedule *made = nullptr;
        call(bitstep_schedule_new, name.c_str(), arguments.c_str(), &made);
        handle_.reset(made);
    }

    schedule clone() const {
        bitstep_schedule *copy = nullptr;
        call(bitstep_schedule_clone, get(), &copy);
        return schedule(copy);
    }
    void step() { call(bitstep_schedule_step, get(), nullptr, std::size_t{0}); }
    void step(double metric) { call(bitstep_schedule_step, get(), &metric, std::size_t{1}); }
    double lr(std::size_t group = 0) const {
        double lr = 0;
        call(bitstep_schedule_lr, get(), group, &lr);
        return lr;
    }
    double lr_at(std::uint64_t steps, std::size_t group = 0) const {
        double lr = 0;
        call(bitstep_schedule_lr_at, get(), group, steps, &lr);
        return lr;
    }
    std::vector<std::uint8_t> save() const {
        return detail::saved(bitstep_schedule_save_size, bitstep_schedule_save, get());
    }
    void load(const std::vector<std::uint8_t> &memory) {
        call(bitstep_schedule_load, get(), memory.data(), memory.size());
    }
    bitstep_schedule *get() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<bitstep_schedule, detail::deleter<bitstep_schedule_free>> handle_;
};

/// Groups of parameters and their state.
class optimizer {
  public:
    optimizer() {
        bitstep_optimizer *made = nullptr;
        call(bitstep_optimizer_new, &made);
        handle_.reset(made);
    }
    explicit optimizer(bitstep_optimizer *handle) noexcept : handle_(handle) {}
    /// With a first group.
    explicit optimizer(const std::string &name, const std::string &arguments = "") : optimizer() {
        add_group(name, arguments);
    }

    optimizer clone() const {
        bitstep_optimizer *copy = nullptr;
        call(bitstep_optimizer_clone, get(), &copy);
        return optimizer(copy);
    }
    std::size_t add_group(const std::string &name, const std::string &arguments = "") {
        std::size_t group = 0;
        call(bitstep_optimizer_add_group, get(), name.c_str(), arguments.c_str(), &group);
        return group;
    }
    void add_param(std::size_t group, const std::vector<std::size_t> &shape, std::uint32_t dtype = BITSTEP_F32) {
        call(bitstep_optimizer_add_param, get(), group, shape.data(), shape.size(), dtype);
    }
    void step(const tensors &all, const numbers &given = {}) {
        call(bitstep_optimizer_step, get(), all.data(), all.size(), given.data(), given.size());
    }
#ifdef BITSTEP_STD
    /// On so many threads, or on one for each processor.
    void step_threads(const tensors &all, std::size_t threads = 0, const numbers &given = {}) {
        call(bitstep_optimizer_step_threads, get(), all.data(), all.size(), given.data(), given.size(), threads);
    }
#endif
    void follow(const schedule &schedule) { call(bitstep_schedule_apply, schedule.get(), get()); }
    void eval(const tensors &all) { call(bitstep_optimizer_eval, get(), all.data(), all.size()); }
    void train(const tensors &all) { call(bitstep_optimizer_train, get(), all.data(), all.size()); }
    bool evaluates() const {
        std::uint32_t mode = 0;
        call(bitstep_optimizer_mode, get(), &mode);
        return mode == BITSTEP_EVAL;
    }
    double lr(std::size_t group = 0) const {
        double lr = 0;
        call(bitstep_optimizer_lr, get(), group, &lr);
        return lr;
    }
    void set_lr(double lr, std::size_t group = 0) { call(bitstep_optimizer_set_lr, get(), group, lr); }
    /// The group's arguments as JSON.
    std::string arguments(std::size_t group = 0) const {
        return detail::text(bitstep_optimizer_arguments, static_cast<const bitstep_optimizer *>(get()), group);
    }
    void set_arguments(const std::string &arguments, std::size_t group = 0) {
        call(bitstep_optimizer_set_arguments, get(), group, arguments.c_str());
    }
    bitstep_param_info param(std::size_t param) const {
        bitstep_param_info info;
        call(bitstep_optimizer_param, get(), param, &info);
        return info;
    }
    std::uint64_t param_steps(std::size_t param) const { return this->param(param).steps; }
    std::size_t find_slot(std::size_t param, const std::string &name) const {
        std::size_t slot = 0;
        call(bitstep_optimizer_find_slot, get(), param, name.c_str(), &slot);
        return slot;
    }
    /// The values of a slot, decoded.
    template <typename T = float>
    std::vector<T> slot(std::size_t param, const std::string &name) const {
        const std::size_t slot = find_slot(param, name);
        bitstep_slot info;
        call(bitstep_optimizer_slot, get(), param, slot, &info);
        std::vector<T> values(info.len);
        const bitstep_tensor to = tensor(values);
        call(bitstep_optimizer_slot_read, get(), param, slot, &to);
        return values;
    }
    template <typename T>
    void set_slot(std::size_t param, const std::string &name, const std::vector<T> &values) {
        call(bitstep_optimizer_slot_write, get(), param, find_slot(param, name),
             static_cast<const void *>(values.data()), values.size(), dtype_of<T>());
    }
    std::size_t state_size() const {
        std::size_t size = 0;
        call(bitstep_optimizer_state_size, get(), &size);
        return size;
    }
    std::vector<std::uint8_t> save() const {
        return detail::saved(bitstep_optimizer_save_size, bitstep_optimizer_save, get());
    }
    void load(const std::vector<std::uint8_t> &memory) {
        call(bitstep_optimizer_load, get(), memory.data(), memory.size());
    }
    bitstep_optimizer *get() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<bitstep_optimizer, detail::deleter<bitstep_optimizer_free>> handle_;
};

/// Clips gradients by their total norm, which is returned.
inline double clip_grad_norm(const tensors &gradients, double max_norm, double norm_type = 2, bool error_if_nonfinite = false) {
    double norm = 0;
    call(bitstep_clip_grad_norm, gradients.data(), gradients.size(), max_norm, norm_type,
         std::int32_t{error_if_nonfinite}, &norm);
    return norm;
}

inline void clip_grad_value(const tensors &gradients, double clip_value) {
    call(bitstep_clip_grad_value, gradients.data(), gradients.size(), clip_value);
}

inline double total_norm(const tensors &gradients, double norm_type = 2) {
    double norm = 0;
    call(bitstep_total_norm, gradients.data(), gradients.size(), norm_type, &norm);
    return norm;
}

inline bool is_finite(const tensors &gradients) {
    std::int32_t finite = 0;
    call(bitstep_is_finite, gradients.data(), gradients.size(), &finite);
    return finite != 0;
}

/// A dynamic loss scale.
class loss_scale {
  public:
    loss_scale() { call(bitstep_loss_scale_default, &state); }
    explicit loss_scale(const bitstep_loss_scale &state) : state(state) {}
    /// Divides gradients by the scale; whether they were finite.
    bool unscale(const tensors &gradients) const {
        std::int32_t finite = 0;
        call(bitstep_unscale, &state, gradients.data(), gradients.size(), &finite);
        return finite != 0;
    }
    void update(bool finite) { call(bitstep_loss_scale_update, &state, std::int32_t{finite}); }

    bitstep_loss_scale state{};
};

/// The sum or mean over windows of micro-batches.
class accumulator {
  public:
    explicit accumulator(std::uint64_t window, bool mean = true) {
        bitstep_accumulator *made = nullptr;
        call(bitstep_accumulator_new, window, std::int32_t{mean}, &made);
        handle_.reset(made);
    }
    /// Adds each tensor's gradient to its data; whether it is time for a step.
    bool add(const tensors &totals) {
        std::int32_t complete = 0;
        call(bitstep_accumulator_add, get(), totals.data(), totals.size(), &complete);
        return complete != 0;
    }
    void window(std::uint64_t window) { call(bitstep_accumulator_window, get(), window); }
    void restart() { call(bitstep_accumulator_restart, get()); }
    bitstep_accumulator *get() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<bitstep_accumulator, detail::deleter<bitstep_accumulator_free>> handle_;
};

#ifdef BITSTEP_TRAINER
/// Optimizer and schedule from the arguments of Transformers' Trainer, and what else the loop has to do.
struct training {
    bitstep::optimizer optimizer;
    bitstep::schedule schedule;
    bitstep_training setup;

    training(const std::string &json, const std::vector<bitstep_parameter> &parameters,
             std::uint64_t num_training_steps = 0)
        : optimizer(nullptr), schedule(nullptr), setup() {
        bitstep_optimizer *made = nullptr;
        bitstep_schedule *follows = nullptr;
        call(bitstep_training_new, json.c_str(), parameters.data(), parameters.size(), num_training_steps, &made,
             &follows, &setup);
        optimizer = bitstep::optimizer(made);
        schedule = bitstep::schedule(follows);
    }
};
#endif

/// The names of all optimizers.
inline std::vector<std::string> optimizers() {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < bitstep_optimizer_count(); i++) {
        bitstep_name name;
        call(bitstep_optimizer_name_at, i, &name);
        names.emplace_back(name.text);
    }
    return names;
}

/// The names of all schedules.
inline std::vector<std::string> schedules() {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < bitstep_schedule_count(); i++) {
        bitstep_name name;
        call(bitstep_schedule_name_at, i, &name);
        names.emplace_back(name.text);
    }
    return names;
}

/// An optimizer's arguments with their defaults, as JSON.
inline std::string optimizer_defaults(const std::string &name) {
    return detail::text(bitstep_optimizer_defaults, name.c_str());
}

/// A schedule's arguments with their defaults, as JSON.
inline std::string schedule_defaults(const std::string &name) {
    return detail::text(bitstep_schedule_defaults, name.c_str());
}

}  // namespace bitstep

#endif  // BITSTEP_HPP
