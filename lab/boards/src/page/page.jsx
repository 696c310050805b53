// The page in which boards are drawn: `window.drawBoard` draws one and says what its panels show.

import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { ThemeContext, createTheme, dateTime } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { version } from '@grafana/ui/package.json';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import { panelFrames } from './frames.js';
import { PANELS } from './panels.jsx';

const theme = createTheme({ colors: { mode: 'dark' } });
/** Time in which plots, which are painted after React is done, settle. */
const SETTLING_MS = 300;

/** Shows the message of an error in place of the panel in which it happened. */
class Guard extends Component {
  state = {};

  static getDerivedStateFromError(error) {
    return { error };
  }

  componentDidCatch(error) {
    this.props.onError(error);
  }

  render() {
    return this.state.error ? <Notice text={this.state.error.message} /> : this.props.children;
  }
}

function Notice({ text }) {
  return (
    <div style={{ display: 'flex', height: '100%', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>
      {text}
    </div>
  );
}

function Panel({ placed, board, timeRange, frames, problem, onError }) {
  const { panel, title, text, left, top, width, height, answers } = placed;
  const style = { position: 'absolute', left, top: top + board.heading, width, height };
  if (panel.type === 'row') {
    return (
      <div data-panel style={{ ...style, ...theme.typography.h5, paddingTop: 4 }}>
        {title}
      </div>
    );
  }
  const Drawn = PANELS[panel.type];
  const hasData = panel.type === 'text' || frames.some((frame) => frame.length > 0) || (panel.type === 'stat' && answers.length > 0);
  return (
    <div data-panel style={style}>
      <PanelChrome title={title} width={width} height={height} displayMode={panel.transparent ? 'transparent' : 'default'}>
        {(innerWidth, innerHeight) => {
          if (problem) return <Notice text={problem} />;
          if (!hasData) return <Notice text={panel.fieldConfig?.defaults?.noValue ?? 'No data'} />;
          return (
            <Guard onError={onError}>
              <Drawn
                panel={panel}
                text={text}
                frames={frames}
                width={innerWidth}
                height={innerHeight}
                timeRange={timeRange}
                annotations={board.annotations}
                theme={theme}
              />
            </Guard>
          );
        }}
      </PanelChrome>
    </div>
  );
}

function utc(seconds) {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ');
}

function Board({ board, prepared, onError }) {
  const [from, to] = [board.range.start, board.range.end].map((time) => dateTime(time * 1000));
  const timeRange = { from, to, raw: { from, to } };
  const chosen = Object.entries(board.variables).filter(([name]) => name !== 'datasource');
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', height: board.height, overflow: 'hidden', background: theme.colors.background.canvas }}>
        <div style={{ ...theme.typography.h4, padding: 10 }}>
          {board.title}
          <span style={{ ...theme.typography.bodySmall, color: theme.colors.text.secondary, marginLeft: 16 }}>
            {utc(board.range.start)} to {utc(board.range.end)} UTC
            {chosen.map(([name, values]) => `, ${name} ${values.length > 2 ? `${values.length} of them` : values.join(' + ')}`)}
          </span>
        </div>
        {board.panels.map((placed, index) => (
          <Panel key={index} placed={placed} board={board} timeRange={timeRange} {...prepared[index]} onError={(error) => onError(index, error)} />
        ))}
        <div style={{ position: 'absolute', left: 10, bottom: 4, ...theme.typography.bodySmall, color: theme.colors.text.secondary }}>
          Drawn with @grafana/ui {version} from the answers of Prometheus. No Grafana server has drawn this.
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

/** Returns the frames of a panel, or why it cannot be drawn. */
async function prepare(placed) {
  const { panel, answers } = placed;
  if (panel.type === 'row') return { frames: [] };
  if (!PANELS[panel.type]) return { frames: [], problem: `panels of the type "${panel.type}" are not drawn here` };
  const failed = answers.find((answer) => answer.error);
  if (failed) return { frames: [], problem: failed.error };
  try {
    return { frames: await panelFrames(placed, theme) };
  } catch (error) {
    return { frames: [], problem: error.message };
  }
}

let root;

window.drawBoard = async (board) => {
  const prepared = await Promise.all(board.panels.map(prepare));
  const errors = prepared.map(({ problem }) => problem);
  root?.unmount();
  document.body.replaceChildren();
  document.body.style.margin = 0;
  const element = document.body.appendChild(document.createElement('div'));
  root = createRoot(element);
  root.render(<Board board={board} prepared={prepared} onError={(index, error) => (errors[index] = error.message)} />);
  await new Promise((resolve) => setTimeout(resolve, SETTLING_MS));
  await document.fonts.ready;
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return [...document.querySelectorAll('[data-panel]')].map((shown, index) => ({ text: shown.innerText, error: errors[index] }));
};
