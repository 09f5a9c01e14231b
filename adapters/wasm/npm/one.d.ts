/** An optimizer of numbers in a memory of its own, which goes with the object. */
export declare class One {
  /** Zeros, to be filled: `optimizer.param.set(weights)`. Arguments have the reference's names and defaults. */
  constructor(length: number, args?: { readonly [name: string]: number | boolean | string | null | readonly (number | null)[] });
  readonly length: number;
  /** The numbers, for a step to change. A view: get it anew after `save` or `load`. */
  readonly param: Float32Array;
  /** Their gradient, for a step to read. */
  readonly grad: Float32Array;
  /** Steps so far. */
  readonly steps: number;
  /** The learning rate among the arguments. */
  readonly lr: number;
  /** One update, at this learning rate. */
  step(lr?: number): void;
  /** Numbers, state and step count, as bytes: those of `State::save` in every language. */
  save(): Uint8Array;
  /** Restores what `save` returned, for the same optimizer and length. */
  load(saved: Uint8Array): void;
}
