/**
 * Values as `JSON.stringify` prints them.
 */
import { DateTime, Duration } from "effect"

/**
 * The fields of a value in the form of JSON, at any depth: a duration is its whole milliseconds under a name that ends
 * in `Millis`, a time is ISO 8601, a bigint is a number. The value must not contain itself.
 */
export const plain = (fields: object): Readonly<Record<string, unknown>> => {
  const out: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(fields)) {
    if (Duration.isDuration(value)) out[`${name}Millis`] = Math.round(Duration.toMillis(value))
    else out[name] = plainValue(value)
  }
  return out
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const plainValue = (value: unknown): unknown => {
  if (typeof value === "bigint") return Number(value)
  if (typeof value !== "object" || value === null) return value
  if (DateTime.isDateTime(value)) return DateTime.formatIso(value)
  return Array.isArray(value) ? value.map(plainValue) : plain(value)
}
