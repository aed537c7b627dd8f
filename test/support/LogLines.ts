/**
 * What a program logs, as lines such as `Warn: stopping took 2.0 s`.
 */
import { Context, Effect, Logger } from "effect"

const Lines = Context.Reference<Array<string>>("test/LogLines", { defaultValue: () => [] })

/** The lines that were logged within {@link capture} until now; the array grows. */
export const lines = Effect.map(Lines, (all): ReadonlyArray<string> => all)

/** Keeps what the effect logs instead of printing it. */
export const capture = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const all: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) =>
      all.push(`${logLevel}: ${(Array.isArray(message) ? message : [message]).join(" ")}`)
    )
    return effect.pipe(Effect.provideService(Lines, all), Effect.provide(Logger.layer([logger])))
  })
