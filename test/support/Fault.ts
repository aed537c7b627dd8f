/**
 * Parts that a program puts into a node, broken at will.
 */
import { Effect, Stream } from "effect"

/** Throws while it is on, and counts how often. */
export const makeFault = () => {
  const fault = { isOn: false, times: 0 }
  const strike = () => {
    if (!fault.isOn) return
    fault.times++
    throw new Error("the part is broken")
  }
  return { fault, strike }
}

/** The same value, that strikes when a function of it is called, one of its effects runs, or one of its streams. */
export const striking = <A>(target: A, strike: () => void): A => {
  if (Effect.isEffect(target)) return Effect.andThen(Effect.sync(strike), target) as A
  if (Stream.isStream(target)) return Stream.concat(Stream.drain(Stream.fromEffect(Effect.sync(strike))), target) as A
  if (typeof target === "function") {
    return ((...args: ReadonlyArray<unknown>) => {
      strike()
      return Reflect.apply(target, undefined, args) as unknown
    }) as A
  }
  return target
}

export const strikingEach = <A extends object>(service: A, strike: () => void): A =>
  Object.fromEntries(Object.entries(service).map(([name, value]) => [name, striking(value, strike)])) as A

/** The same options, that strike when one of them is read, or called; all, or those that are named. */
export const strikingRead = <A extends object>(
  options: A,
  strike: () => void,
  names: ReadonlyArray<string> = Object.keys(options)
): A =>
  Object.defineProperties(
    {},
    Object.fromEntries(
      Object.entries(options).map(([name, value]) => [name, {
        enumerable: true,
        get: () => {
          if (!names.includes(name)) return value as unknown
          if (typeof value !== "function") strike()
          return striking(value, strike)
        }
      }])
    )
  ) as A
