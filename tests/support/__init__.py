"""What tests are made with: pictures, label sets, models, servers, and independent readers to compare with."""
