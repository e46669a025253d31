/** Completion scripts for bash, zsh and fish. */
import type { CompletedCommand, CompletedOption, Expected } from "./completion.js";

/** bash 3.2 and later, with or without the package bash-completion. */
export function bashCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const values = commands.flatMap((command) =>
    command.options
      .filter(({ value }) => value)
      .map((option) => {
        const patterns = option.flags.map((flag) => `${command.name}/${flag}`).join(" | ");
        const back = option.isOptional ? "" : "; return";
        return `    ${patterns}) ${bashReply(option.value as Expected)}${back} ;;`;
      }),
  );
  const options = commands.map(
    ({ name, options: own }) => `      ${name}) words="${own.flatMap(({ flags }) => flags).join(" ")}" ;;`,
  );
  const arguments_ = commands.map(({ name, argument }) => `    ${name}) ${bashReply(argument)} ;;`);
  return `# Completion of fishy for bash. Made by: fishy completion bash
_fishy_files() {
  local name
  # Line by line: names may hold spaces.
  while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$1")
}
_fishy() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} command="" words="" i
  COMPREPLY=()
  # bash splits --option=value at the equals sign.
  if [[ $current == "=" ]]; then
    current=""
  elif [[ $previous == "=" ]]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " ${names} " in
      *" \${COMP_WORDS[i]} "*) command=\${COMP_WORDS[i]}; break ;;
    esac
  done
  if [[ -z $command ]]; then
    COMPREPLY=($(compgen -W "${names} help --help --version" -- "$current"))
    return
  fi
  case "$command/$previous" in
${values.join("\n")}
  esac
  if [[ $current == -* ]]; then
    case $command in
${options.join("\n")}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case $command in
${arguments_.join("\n")}
  esac
}
complete -o filenames -F _fishy fishy
`;
}

function bashReply({ words, files }: Expected): string {
  const own = words.length > 0 ? `COMPREPLY=($(compgen -W "${words.join(" ")}" -- "$current"))` : "COMPREPLY=()";
  return files ? `${own}; _fishy_files "$current"` : own;
}

export function zshCompletion(commands: readonly CompletedCommand[]): string {
  const list = commands.map(({ name, description }) => `    ${zshQuote(`${name}:${description}`)}`);
  const cases = commands.map(({ name, options, argument }) => {
    const specs = [...options.flatMap(zshOption), zshQuote(`*:argument:${zshAction(argument)}`)];
    return `        ${name})\n          _arguments \\\n${specs.map((spec) => `            ${spec}`).join(" \\\n")}\n          ;;`;
  });
  return `#compdef fishy
# Completion of fishy for zsh. Made by: fishy completion zsh
_fishy() {
  local context state state_descr line
  typeset -A opt_args
  local -a commands
  commands=(
${list.join("\n")}
  )
  _arguments -C '(- *)--version[print the version]' '(- *)--help[display help]' '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument)
      case $line[1] in
${cases.join("\n")}
      esac
      ;;
  esac
}
if [[ $funcstack[1] == _fishy ]]; then
  _fishy "$@"
else
  compdef _fishy fishy
fi
`;
}

function zshOption({ flags, description, value, isOptional }: CompletedOption): string[] {
  const help = `[${description.replace(/[[\]\\]/g, "\\$&")}]`;
  const argument = value ? `${isOptional ? "::" : ":"}value:${zshAction(value)}` : "";
  return flags.map((flag) => zshQuote(`*${flag}${help}${argument}`));
}

function zshAction({ words, files }: Expected): string {
  const escaped = words.map((word) => word.replace(/:/g, "\\:"));
  if (words.length === 0) return files ? "_files" : " ";
  return files ? `{compadd -- ${escaped.join(" ")}; _files}` : `(${escaped.join(" ")})`;
}

function zshQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function fishCompletion(commands: readonly CompletedCommand[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const lines = commands.flatMap((command) => {
    const within = `complete -c fishy -n "__fish_seen_subcommand_from ${command.name}"`;
    return [
      `complete -c fishy -n "not __fish_seen_subcommand_from ${names}" -a ${command.name} -d ${fishQuote(command.description)}`,
      ...command.options.map((option) => `${within} ${fishOption(option)}`),
      ...(command.argument.words.length > 0 ? [`${within} -a "${command.argument.words.join(" ")}"`] : []),
      ...(command.argument.files ? [`${within} -F`] : []),
    ];
  });
  return `# Completion of fishy for fish. Made by: fishy completion fish
complete -c fishy -f
complete -c fishy -n "not __fish_seen_subcommand_from ${names}" -l help -d "display help"
complete -c fishy -n "not __fish_seen_subcommand_from ${names}" -l version -d "print the version"
${lines.join("\n")}
`;
}

function fishOption({ flags, description, value, isOptional }: CompletedOption): string {
  const names = flags.map((flag) => (flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  const words = value && value.words.length > 0 ? ` -a "${value.words.join(" ")}"` : "";
  // -r: a value must follow; -F: which may be a file.
  const expects = value && (!isOptional || words !== "");
  const kind = expects ? (value.files ? " -r -F" : " -r -f") : "";
  return `${names.join(" ")}${kind}${words} -d ${fishQuote(description)}`;
}

function fishQuote(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
