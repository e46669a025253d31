/** What a program tells an optimizer about the statistics of a parameter in a step, in place of one gradient. */

/**
 * `gradient`: the Gram matrices of a gradient. `layer`: their expectation in closed form for G = Σ_i δ_i x_iᵀ with
 * independent δ_i of mean zero and covariance w·V_i, where V_i = diag(v_i), or diag(p_i) − p_i p_iᵀ:
 *
 *     E[GGᵀ] = w Σ_i |x_i|² V_i        E[GᵀG] = w Σ_i tr(V_i) x_i x_iᵀ
 *
 * Values are named: nodes of a graph, or outputs of a program.
 */
export type StatisticsTerm =
  | { readonly kind: "gradient"; readonly value: string }
  | {
      readonly kind: "layer";
      /** [rows, inputs]; ones, [rows, 1], for a bias. */
      readonly input: string;
      /** v or p: [rows, outputs]. */
      readonly output: string;
      readonly covariance: "diagonal" | "categorical";
      /** w: a float32 scalar. */
      readonly weight: string;
      /** Which axis of the parameter belongs to the outputs; the others are the inputs, in order. */
      readonly outputAxis: "first" | "last";
    };
