/**
 * The namespaces of values that this node stores, besides the built-in `/codio/...`.
 */
import { Context } from "effect"
import type { ValueRules } from "../schema/ValueNamespace.ts"

/**
 * None by default. An application gives its own with `Layer.succeed(ValueNamespaces)([Scores])`, on every node that
 * should store their values.
 */
export const ValueNamespaces = Context.Reference<ReadonlyArray<ValueRules>>("codio-network/services/ValueNamespaces", {
  defaultValue: () => []
})
