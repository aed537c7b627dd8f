/**
 * The program's log on stderr, filtered by component, with libp2p's own lines in it.
 */
import { Cause, Effect, Formatter, Layer, Logger, LogLevel, References } from "effect"
import { Libp2pLogger, makeFiltered } from "../layers/libp2p/Logger.ts"
import * as LogFilter from "../schema/LogFilter.ts"
import { printable } from "./print.ts"

/**
 * Replaces effect's loggers with one that writes to stderr what the filter lets pass: readable lines, or with `json`
 * one object per line. The annotation `component` names the component of a line.
 */
export const layer = (filter: LogFilter.LogFilter, json: boolean): Layer.Layer<never> =>
  libp2pLines(filter).pipe(
    Layer.provideMerge(Layer.mergeAll(
      Logger.layer([filtered(filter, Logger.withConsoleError(Logger.make(json ? jsonLine : textLine)))]),
      Layer.succeed(References.MinimumLogLevel, LogFilter.lowest(filter))
    ))
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const componentOf = (annotations: Readonly<Record<string, unknown>>): string => {
  const component = annotations["component"]
  return typeof component === "string" ? component : "codio"
}

function filtered(filter: LogFilter.LogFilter, logger: Logger.Logger<unknown, void>): Logger.Logger<unknown, void> {
  return Logger.make((options) => {
    const component = componentOf(options.fiber.getRef(References.CurrentLogAnnotations))
    if (LogLevel.isGreaterThanOrEqualTo(options.logLevel, LogFilter.minimum(filter, component))) logger.log(options)
  })
}

function libp2pLines(filter: LogFilter.LogFilter): Layer.Layer<never> {
  return Layer.effect(
    Libp2pLogger,
    Effect.map(Effect.context<never>(), (context) => {
      const run = Effect.runSyncWith(context)
      return makeFiltered(
        filter,
        (level, component, message) => run(Effect.logWithLevel(level)(message).pipe(Effect.annotateLogs({ component })))
      )
    })
  )
}

const textOf = (value: unknown): string => typeof value === "string" ? value : Formatter.format(value)

const messageOf = (message: unknown): string => (Array.isArray(message) ? message : [message]).map(textOf).join(" ")

// By hand: effect's text formats begin with fiber numbers and quote each value, and a remote's text could break their
// line.
function textLine({ cause, date, fiber, logLevel, message }: Logger.Options<unknown>): string {
  const { component, ...annotations } = fiber.getRef(References.CurrentLogAnnotations)
  const more = Object.entries(annotations).map(([name, value]) => ` ${name}=${textOf(value)}`).join("")
  // A cause is printed with its stack, on lines of its own.
  const detail = cause.reasons.length === 0 ? "" : `\n${Cause.pretty(cause)}`
  return `${date.toISOString()} ${logLevel.toUpperCase().padEnd(5)} ${componentOf({ component })}: ${
    printable(`${messageOf(message)}${more}`)
  }${detail}`
}

// By hand: these keys are documented, and effect's differ.
function jsonLine({ cause, date, fiber, logLevel, message }: Logger.Options<unknown>): string {
  const { component, ...annotations } = fiber.getRef(References.CurrentLogAnnotations)
  return Formatter.formatJson({
    time: date.toISOString(),
    level: logLevel.toLowerCase(),
    component: componentOf({ component }),
    message: messageOf(message),
    ...annotations,
    ...cause.reasons.length === 0 ? {} : { cause: Cause.pretty(cause) }
  })
}
