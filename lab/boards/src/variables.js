// Gives a board's variables their values, and replaces them in queries and titles as Grafana does.

/** The value by which a board says that all options of a variable are selected. */
const ALL = '$__all';

/** Escapes a value for a regular expression inside a string of PromQL. */
function regexEscape(value) {
  return String(value)
    .replace(/\\/g, '\\\\\\\\')
    .replace(/[$^*{}[\]'+?.()|]/g, '\\\\$&');
}

/** Escapes a value for a string of PromQL. */
function stringEscape(value) {
  return String(value).replace(/\\/g, '\\\\').replace(/"/g, '\\"');
}

function alternatives(values) {
  const escaped = values.map(regexEscape);
  return escaped.length === 1 ? escaped[0] : `(${escaped.join('|')})`;
}

/** How a variable's values appear in a text, by the format that `${name:format}` names. */
const FORMATS = {
  raw: (values) => values.join(','),
  csv: (values) => values.join(','),
  pipe: (values) => values.join('|'),
  regex: alternatives,
  singlequote: (values) => values.map((value) => `'${value}'`).join(','),
  doublequote: (values) => values.map((value) => `"${value}"`).join(','),
  json: (values) => JSON.stringify(values.length === 1 ? values[0] : values),
};

function valuesOf({ options }) {
  return options.map((option) => option.value);
}

function textOf({ options }) {
  return options.map((option) => option.text).join(' + ');
}

/** The values of all variables of one board. */
export class Variables {
  /** @param {Record<string, string>} builtIn values of Grafana's own variables, such as `__range` */
  constructor(builtIn) {
    this.builtIn = builtIn;
    this.values = new Map();
  }

  /** Returns the same variables with further built-in ones, or other values of them. */
  with(builtIn) {
    const copy = new Variables({ ...this.builtIn, ...builtIn });
    copy.values = this.values;
    return copy;
  }

  /** Returns the same variables with one value of one of them, as for a repeated panel. */
  withValue(name, value) {
    const copy = this.with({});
    copy.values = new Map(this.values);
    const variable = this.values.get(name);
    copy.values.set(name, { ...variable, options: variable.options.filter((option) => option.value === value), raw: undefined });
    return copy;
  }

  /** Returns the selected values of a variable. */
  selected(name) {
    return (this.values.get(name)?.options ?? []).map((option) => option.value);
  }

  /** Returns the texts that people read of the selected values, by variable. */
  texts() {
    return Object.fromEntries([...this.values].map(([name, { options }]) => [name, options.map((option) => option.text)]));
  }

  /** Replaces the variables in a query. */
  inQuery(text) {
    return this.#replace(text, (variable) =>
      variable.isList ? alternatives(valuesOf(variable)) : valuesOf(variable).map(stringEscape).join(','),
    );
  }

  /** Replaces the variables in a text that people read. */
  inText(text) {
    return this.#replace(text ?? '', textOf);
  }

  #replace(text, byDefault) {
    const pattern = /\$\{(\w+)(?:\.[^:}]+)?(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]|\$(\w+)/g;
    return text.replace(pattern, (found, braced, format, bracketed, bracketedFormat, plain) => {
      const name = braced ?? bracketed ?? plain;
      if (name in this.builtIn) return this.builtIn[name];
      const variable = this.values.get(name);
      if (!variable) return found;
      if (variable.raw !== undefined) return variable.raw;
      const named = format ?? bracketedFormat;
      if (named === 'text') return textOf(variable);
      return FORMATS[named] ? FORMATS[named](valuesOf(variable)) : byDefault(variable);
    });
  }

  /**
   * Sets a variable of the board: to what `chosen` says, else to what the board says, else to the first option.
   *
   * @param {object} definition an element of the board's `templating.list`
   * @param {string | undefined} chosen value from the command line
   */
  async define(definition, chosen, prometheus, range) {
    const options = await this.#options(definition, prometheus, range);
    const isList = Boolean(definition.multi || definition.includeAll);
    const saved = [definition.current?.value ?? []].flat().filter((value) => value !== '');
    const isAll = chosen === undefined && definition.includeAll && (saved.length === 0 || saved.includes(ALL));
    const wanted = chosen === undefined ? saved : [chosen];
    const known = options?.filter(({ value, text }) => wanted.includes(value) || wanted.includes(text));
    const unknown = wanted.map((value) => ({ value, text: value }));
    let selected;
    if (isAll) selected = options;
    else if (known === undefined) selected = unknown;
    else if (known.length > 0) selected = known;
    else selected = chosen === undefined ? options.slice(0, 1) : unknown;
    const raw = isAll && definition.allValue ? definition.allValue : undefined;
    this.values.set(definition.name, { options: selected, isList, raw });
  }

  /** Returns the options of a variable; `undefined` if any value is one. */
  async #options(definition, prometheus, range) {
    const text = typeof definition.query === 'object' ? definition.query?.query : definition.query;
    switch (definition.type) {
      case 'query':
        return sorted(filtered(await ask(this.inQuery(text ?? ''), prometheus, range), definition.regex), definition.sort);
      case 'custom':
      case 'interval':
        return (text ?? '').split(',').map((option) => {
          const parts = option.trim().split(' : ');
          return { value: parts.at(-1), text: parts[0] };
        });
      case 'datasource':
        return [plain('prometheus')];
      case 'constant':
      case 'textbox':
        return [plain(text ?? '')];
      default:
        return undefined;
    }
  }
}

/** Asks a variable's query; returns a text for each option. */
async function ask(query, prometheus, range) {
  const values = /^label_values\((?:(.*),)?\s*(\w+)\s*\)$/s.exec(query);
  if (values) return prometheus.labelValues(values[2], values[1]?.trim(), range);
  const results = /^query_result\((.*)\)$/s.exec(query);
  if (results) {
    const { result } = await prometheus.instant(results[1], range.end);
    return result.map(({ metric, value }) => {
      const { __name__: name = '', ...labels } = metric;
      const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
      return `${name}{${pairs.join(',')}} ${value[1]} ${value[0] * 1000}`;
    });
  }
  throw new Error(`a variable asks "${query}", which is neither label_values(…) nor query_result(…)`);
}


function plain(value) {
  return { value, text: value };
}

/**
 * Returns the options that match `/pattern/`: value and text from its groups of these names, else from its first group.
 *
 * With the flag `g`, value and text can come from different places of one option.
 */
function filtered(found, regex) {
  if (!regex) return found.map(plain);
  const [, pattern, flags] = /^\/(.*)\/([a-z]*)$/s.exec(regex) ?? [undefined, regex, ''];
  const isGlobal = flags.includes('g');
  const compiled = new RegExp(pattern, isGlobal ? flags : `${flags}g`);
  const options = found.flatMap((option) => {
    const matches = [...option.matchAll(compiled)].slice(0, isGlobal ? undefined : 1);
    const [value, text] = ['value', 'text'].map((group) => matches.find((match) => match.groups?.[group])?.groups[group]);
    if (value !== undefined || text !== undefined) return [{ value: value ?? text, text: text ?? value }];
    return matches.map((match) => plain(match[1] ?? match[0]));
  });
  return [...new Map(options.map((option) => [option.value, option])).values()];
}

/** Sorts options as the board's number says: odd ascending, even descending; 3 and 4 by number, 7 and 8 naturally. */
function sorted(options, sort = 0) {
  if (sort === 0) return options;
  const isByNumber = sort === 3 || sort === 4 || sort >= 7;
  const { compare } = new Intl.Collator('en', { numeric: isByNumber });
  const ascending = [...options].sort((a, b) => compare(a.text, b.text));
  return sort % 2 === 1 ? ascending : ascending.reverse();
}
