//! The options that only some strategies have.

use super::{Config, StrategyName, at_least, at_most, within};
use crate::{Error, Result};

impl Config {
    /// Checks them, and fills in the defaults of those that the strategy has.
    pub(super) fn resolve_strategy(&mut self) -> Result<()> {
        use StrategyName::{Agem, Ewc, Gem, Lwf, Mas, Si};
        const MAX: f64 = f32::MAX as f64;
        let strategy = self.strategy;
        let numbers = [
            ("--ewc-lambda", &mut self.ewc_lambda, Some(1.0), Ewc),
            ("--decay-factor", &mut self.decay_factor, None, Ewc),
            ("--temperature", &mut self.temperature, Some(2.0), Lwf),
            ("--si-lambda", &mut self.si_lambda, Some(1.0), Si),
            ("--lambda-reg", &mut self.lambda_reg, Some(1.0), Mas),
            (
                "--memory-strength",
                &mut self.memory_strength,
                Some(0.5),
                Gem,
            ),
        ];
        for (option, value, default, of) in numbers {
            used(option, value.is_some(), strategy, &[of])?;
            if strategy == of {
                *value = value.or(default);
            }
            within(option, value.unwrap_or(0.0), 0.0, MAX)?;
        }
        let counts = [
            (
                "--patterns-per-exp",
                &mut self.patterns_per_exp,
                &[Agem, Gem][..],
            ),
            ("--sample-size", &mut self.sample_size, &[Agem]),
        ];
        for (option, value, of) in counts {
            used(option, value.is_some(), strategy, of)?;
            if of.contains(&strategy) {
                let value = value.get_or_insert(256);
                at_least(option, *value, 1)?;
                at_most(option, *value, 1 << 20)?;
            }
        }
        if self.temperature == Some(0.0) {
            return Err(Error::config("--temperature", "a number above 0", 0));
        }
        Ok(())
    }
}

/// An option that is given must be one of the strategy's.
fn used(option: &str, given: bool, strategy: StrategyName, of: &[StrategyName]) -> Result<()> {
    if given && !of.contains(&strategy) {
        let names: Vec<&str> = of.iter().map(|s| s.name()).collect();
        let wanted = format!("--strategy {} with it", names.join(" or "));
        return Err(Error::config(option, wanted, strategy.name()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_their_strategies() {
        let ewc = Config {
            strategy: StrategyName::Ewc,
            ..Config::default()
        };
        let resolved = ewc.clone().resolve().unwrap();
        assert_eq!(
            (resolved.ewc_lambda, resolved.decay_factor),
            (Some(1.0), None)
        );
        assert_eq!(resolved.si_lambda, None);
        let error = |config: Config| config.resolve().unwrap_err().to_string();
        let misplaced = Config {
            temperature: Some(1.0),
            ..ewc.clone()
        };
        assert!(error(misplaced).contains("--strategy lwf"));
        let negative = Config {
            ewc_lambda: Some(f64::NAN),
            ..ewc
        };
        assert!(error(negative).contains("--ewc-lambda"));
        let none = Config {
            strategy: StrategyName::Gem,
            patterns_per_exp: Some(0),
            ..Config::default()
        };
        assert!(error(none).contains("--patterns-per-exp"));
    }
}
