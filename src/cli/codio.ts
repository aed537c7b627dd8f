/**
 * The command `codio` without its process, so that tests can run it with arguments of their own.
 */
import { Console, Effect, Layer } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli"
import { version } from "../schema/Agent.ts"
import { printable } from "./print.ts"
import { start } from "./start.ts"

const codio = Command.make("codio").pipe(
  Command.withDescription("A peer of the Codio network"),
  Command.withSubcommands([start])
)

/**
 * Runs the command. A usage error, wrong options and a node that cannot start give one line on stderr and fail the
 * effect.
 */
export const run = (args: ReadonlyArray<string>) =>
  Command.runWith(codio, { version })(args).pipe(
    Effect.tapError((error) =>
      // The presenter below has printed the usage error.
      error._tag === "ShowHelp" ? Effect.void : Console.error(`codio: ${printable(startError(error))}`)
    ),
    Effect.provide(presentation)
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const startError = (error: { readonly _tag: string; readonly message: string }): string =>
  error._tag === "ConfigError" ? `cannot start: ${error.message}` : error.message

// effect's own presenter prints the whole help when a flag is wrong.
const presentation = Layer.mergeAll(
  CliOutput.layerPresenter({
    present: (event) =>
      event._tag === "InvalidInvocation"
        ? Console.error(
          `codio: ${printable(event.errors.map((error) => error.message).join("; "))}; see ${
            event.commandPath.join(" ")
          } --help`
        )
        : CliOutput.defaultPresenter.present(event)
  }),
  // Without --wizard, which needs a terminal, and without --log-level, which --log replaces.
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
)
