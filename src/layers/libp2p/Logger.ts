/**
 * The way of libp2p's own log lines.
 */
import type { ComponentLogger, Logger } from "@libp2p/interface"
import { Context, LogLevel } from "effect"
import { base32 } from "multiformats/bases/base32"
import { base58btc } from "multiformats/bases/base58"
import { base64 } from "multiformats/bases/base64"
import { formatWithOptions } from "node:util"
import * as LogFilter from "../../schema/LogFilter.ts"

/**
 * The logger of libp2p's components. Silent by default; replace it with `Layer.succeed`.
 *
 * Gotchas
 * - Arguments are in printf style (`%p` a peer, `%a` an address, `%e` an error); a silent logger must not format them.
 * - `newScope` is called for each connection and each stream: return one shared logger where no line is written.
 */
export const Libp2pLogger = Context.Reference<ComponentLogger>("codio-network/layers/Libp2pLogger", {
  defaultValue: () => silent
})

/**
 * A logger that gives each line that passes the filter to `write`, as text.
 *
 * Components are named `libp2p:<name>`, as in `libp2p:tcp`. Its plain lines are `Debug`, its traces `Trace`, its errors
 * `Error`. Only lines that pass are formatted; components that the filter does not mention share one silent logger.
 */
export const makeFiltered = (
  filter: LogFilter.LogFilter,
  write: (level: LogLevel.Severity, component: string, message: string) => void
): ComponentLogger => {
  const make = (component: string): Logger => {
    if (!LogFilter.mentions(filter, component)) return silentLogger
    const minimum = LogFilter.minimum(filter, component)
    const at = (level: LogLevel.Severity) =>
      LogLevel.isGreaterThanOrEqualTo(level, minimum)
        ? (formatter: unknown, ...args: Array<unknown>) => write(level, component, format(formatter, args))
        : nothing
    return Object.assign(at("Debug"), {
      error: at("Error"),
      trace: at("Trace"),
      enabled: LogLevel.isGreaterThanOrEqualTo("Debug", minimum),
      newScope: (name: string) => make(`${component}:${name}`)
    })
  }
  return { forComponent: (name) => make(name === "libp2p" || name.startsWith("libp2p:") ? name : `libp2p:${name}`) }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function nothing(): void {}

// Shared, since libp2p asks for about twenty scopes for each connection.
const silentLogger: Logger = Object.assign(() => {}, {
  error: nothing,
  trace: nothing,
  enabled: false,
  newScope: () => silentLogger
})

const silent: ComponentLogger = { forComponent: () => silentLogger }

// libp2p's own placeholders; `util.format` handles the others. A value may be missing where libp2p logs a failure.
const placeholders: Readonly<Record<string, (value: unknown) => string>> = {
  a: String,
  b: (value) => value instanceof Uint8Array ? base58btc.baseEncode(value) : String(value),
  c: String,
  e: (value) => value instanceof Error ? errorText(value) : String(value),
  k: String,
  m: (value) => value instanceof Uint8Array ? base64.baseEncode(value) : String(value),
  p: String,
  t: (value) => value instanceof Uint8Array ? base32.baseEncode(value) : String(value)
}

function format(formatter: unknown, args: ReadonlyArray<unknown>): string {
  try {
    if (typeof formatter !== "string") return [formatter, ...args].map(plainly).join(" ")
    let next = 0
    const text = formatter.replace(/%([a-zA-Z%])/g, (match, letter: string) => {
      if (letter === "%") return "%"
      if (next >= args.length) return match
      const value = args[next++]
      return placeholders[letter]?.(value) ?? formatWithOptions(inspection, match, value)
    })
    return [text, ...args.slice(next).map(plainly)].join(" ")
  } catch (cause) {
    // The value's own toString threw; logging must not break what is logged.
    return `${String(formatter)} (not formatted: ${String(cause)})`
  }
}

const inspection = { breakLength: Infinity, depth: 3 }

const plainly = (value: unknown): string =>
  value instanceof Error ? errorText(value) : formatWithOptions(inspection, value)

function errorText(error: Error): string {
  const inner = error instanceof AggregateError
    ? error.errors.map((one) => one instanceof Error ? errorText(one) : String(one))
    : []
  return `${error.name}: ${error.message}${inner.length === 0 ? "" : ` (${inner.join("; ")})`}`
}
