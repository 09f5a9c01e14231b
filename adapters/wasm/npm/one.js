// The other half of adapters/wasm/one: a class of one optimizer, out of a module of a few kilobytes.

const text = new TextDecoder();

/** Makes the class of a module, whose bytes are the characters of a string. */
export function optimizer(name, bytes) {
  const module = new WebAssembly.Module(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));

  return class {
    #wasm;
    #length;
    #param;

    constructor(length, args = {}) {
      if (!Number.isInteger(length) || length < 0 || length > 2 ** 30)
        throw new RangeError(`length is ${length}, but must be a whole number from 0 to 2^30`);
      this.#length = length;
      const known = new Set();
      const offered = [];
      const read = (at, len) => text.decode(new Uint8Array(this.#wasm.memory.buffer, at, len));
      const must = (name, value, expected) => {
        throw new TypeError(`\`${name}\` is ${JSON.stringify(value) ?? String(value)}, but must be ${expected}`);
      };
      const bitstep = {
        argument: (at, len, element, of, kind, byDefault) => {
          const name = read(at, len);
          known.add(name);
          if (args[name] === undefined) return byDefault;
          if (of && args[name]?.length !== of) must(name, args[name], `a list of ${of}`);
          const value = of ? args[name][element - 1] : args[name];
          if (kind === 3) return typeof value === "boolean" ? +value : must(name, value, "true or false");
          if (typeof value !== "number") must(name, value, "a number");
          if (kind && !Number.isSafeInteger(value)) must(name, value, "a whole number");
          if (kind === 1 && value < 0) must(name, value, "a whole number, at least 0");
          return value;
        },
        is_none: (at, len, byDefault) => {
          const name = read(at, len);
          known.add(name);
          return args[name] === undefined ? byDefault : +(args[name] === null);
        },
        is_choice: (at, len, choice, choiceLength) => {
          const name = read(at, len);
          known.add(name);
          if (args[name] === undefined) return 0;
          if (!choiceLength) must(name, args[name], `one of ${offered.splice(0).join(", ")}`);
          offered.push(JSON.stringify(read(choice, choiceLength)));
          return +(args[name] === read(choice, choiceLength)) && offered.splice(0).length > 0;
        },
        refuse: (at, len, value, expected, expectedLength) => {
          const is = Number.isNaN(value) && args[read(at, len)] === undefined ? "" : ` is ${value}, but`;
          throw new RangeError(`${read(at, len)}${is} must satisfy ${read(expected, expectedLength)}`);
        },
        refuse_saved: (at, len, got, expected) => {
          throw new RangeError(`saved state: ${read(at, len)} is ${got}, but must be ${expected}`);
        },
      };
      // Its memory goes with the object.
      this.#wasm = new WebAssembly.Instance(module, { bitstep }).exports;
      this.#param = this.#wasm.create(length) >>> 0;
      if (!this.#param) throw new RangeError(`no memory for ${length} numbers and their state`);
      for (const name of Object.keys(args))
        if (!known.has(name))
          throw new TypeError(`no argument \`${name}\`; there are ${[...known].join(", ")}`);
    }

    static get name() {
      return name;
    }

    get length() {
      return this.#length;
    }

    get param() {
      return new Float32Array(this.#wasm.memory.buffer, this.#param, this.#length);
    }

    get grad() {
      return new Float32Array(this.#wasm.memory.buffer, this.#param + 4 * this.#length, this.#length);
    }

    get steps() {
      return this.#wasm.steps();
    }

    get lr() {
      return this.#wasm.lr();
    }

    step(lr = this.lr) {
      if (typeof lr !== "number") throw new TypeError(`lr is ${String(lr)}, but must be a number`);
      this.#wasm.step(lr);
    }

    #saved() {
      const at = this.#wasm.saved() >>> 0;
      if (!at) throw new RangeError(`no memory for saved state of ${this.#length} numbers`);
      return new Uint8Array(this.#wasm.memory.buffer, at, this.#wasm.saved_len() >>> 0);
    }

    save() {
      const bytes = this.#saved();
      this.#wasm.save();
      return bytes.slice();
    }

    load(saved) {
      if (!(saved instanceof Uint8Array)) throw new TypeError("saved must be a Uint8Array");
      const bytes = this.#saved();
      if (saved.length !== bytes.length)
        throw new RangeError(`saved has ${saved.length} bytes, but ${bytes.length} are needed`);
      bytes.set(saved);
      this.#wasm.load();
    }
  };
}
